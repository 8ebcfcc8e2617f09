// Package metadata is the broker's durable catalogue: topics, their configuration and pins, dynamic broker and group configs,
// throttle overrides, client quotas, tier identities and the producer-id counter. It also holds the schema of config keys (types,
// defaults, ranges, documentation) and resolves a topic's effective configuration.
//
// It is not a place for data that changes with every record (offsets, producer state), and it never touches partition
// directories: the broker makes and removes those around the catalogue's records. It knows no wire types.
//
//	change ──► decide against the Snapshot ──► one frame: write, fdatasync ──► publish the next Snapshot ──► OnChange
//	reader ──► Snapshot(): one atomic load, immutable, for as long as it likes
//
// # Files
//
// In the hottest tier, directory lagoon-metadata. <g> is the generation, 20 digits. All numbers are big-endian.
//
//	<g>.snapshot  the whole catalogue at its version: magic "LGNMSNAP", format u32, generation u64, version u64,
//	              cluster id (22 bytes), record count u32; per record length u32 and record; CRC32C of all before
//	<g>.log       what happened since: magic "LGNMLOG\x01", generation u64, CRC32C of these 16 bytes; then frames of
//	              length u32, CRC32C u32 (length, sequence, record), sequence u64, record
//	*.tmp         a snapshot being written; removed at start
//
// A record is a kind byte and its fields (record.go); numbers are shortest-form varints, texts have a length before
// them, maps are sorted: equal records have equal bytes, and the decoder accepts nothing the encoder does not write.
// The sequence of a frame is the Snapshot.Version that it makes.
//
// A generation begins at Open, at Close and when the log has grown: make <g+1>.log, sync it and its name; write
// <g+1>.snapshot beside, sync, rename; sync the directory; remove <g>.*. The rename is the commit point.
//
// # What survives
//
// Every change is on stable storage before its method returns nil, and a change is whole or absent. After a power cut
// the catalogue is the one of the last acknowledged change, or of the one that was being made.
//
//	found at start                                what happens
//	tail of the log is not a whole frame          torn write of an unacknowledged change: cut, logged
//	bad frame with a good one behind it           CorruptError, nothing is changed
//	snapshot or log header bad, or one is missing CorruptError, nothing is changed
//	unknown format, record kind                   ErrNewer, nothing is changed
//	<g+1>.log without snapshot, *.tmp, old <g>    leftovers of an interrupted compaction: removed
//
// A bad last frame that was acknowledged before an unclean stop cannot be told from a torn one. It costs the last change,
// never data: partition directories are removed only for topics whose deletion is on record (Snapshot.Deleting).
//
// A failed sync, or a write that fails for another reason than a full disk, makes the store read-only until restart
// (ErrFailed): what the disk holds is unknown. A full disk (ErrNoSpace) changes nothing and passes; space for some
// thousand changes is reserved, so that topics can be deleted then.
//
// # Concurrency
//
// Store.mu orders changes and is held across their write and sync. Snapshots are immutable: a change copies the maps it
// touches. Work of several steps on one topic (record and directories) is serialised by LockTopic, which is taken before
// Store.mu and never inside it.
package metadata
