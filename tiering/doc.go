// Package tiering decides where sealed segments live and moves them there: from the tier that takes the appends to
// colder ones, by age, bytes, policy and fill.
//
// It is not a storage layer: what a segment's bytes mean is package segment's, which segments a partition has and who
// reads them is the partition's, how reads stay out of the page cache is cachectl's, how much a device may do is
// admission's. The last three come in through Env, as interfaces; this package imports only segment and vfs. Segments
// only move to colder tiers, but for a partition that an operator pinned to a hotter one: no read promotes.
//
//	Snapshot ─► Migrator.Mark ─► Plan (pure) ─► Migrator.Offer ─► Run ─► Options.Prepare ─► Migrate ─► Env.Publish, Env.Retire
//	   ▲ the store, every few seconds                                          at start: Claim (per tier), Sweep (per partition)
//
// # Planner
//
// Plan is a function of a Snapshot. For how long data stay in a tier: the topic's policy ("ssd:1h,hdd") beats its
// local.retention.ms (hottest tier only), which beats the tier's keep. local.retention.bytes limits a partition in the
// hottest tier. A pin (PartitionState.Pin) beats all of these. Above its high watermark a tier, or one of its directories, gives data until it is at its
// low one, whatever their age; only a topic's policy stands above that, and what is pinned there goes last. A full tier first makes room in turn. testdata/plan tells it in stories.
//
// Demand: what a reader at work comes to within the horizon (its distance by its measured rate) is put off and says for
// whom; what every reader has passed moves first. A tier that is too full waits for nobody: it gives what nobody comes to,
// oldest first, then what is needed last.
//
// # Migration: steps, and what a crash leaves
//
// A crash is a kill (all that was written is there) or a power cut (what was not synced may be there, in parts, or not).
// Where a segment is, is read off the listings: a complete copy is one whose .log has its name.
//
//	step     action                                                  crash after it: state found -> what Sweep does
//	prepare  target directory, partition.metadata                    an empty directory                -> stays
//	copy     companions, then .log to NAME.migrating, in chunks;     source whole, .migrating files in
//	         batches verified (header, CRC, order); synced           part or whole                     -> removed
//	verify   copies read back from the device: same CRC32C, batches  as after copy
//	         whole, index entries point at batches
//	commit   rename companions, sync directory                       source whole, indexes without log -> removed
//	         rename .log  ** commit point **                         power cut: as before, or as after
//	         sync directory                                          two complete copies               -> colder one stays
//	publish  readers switch (Env.Publish)                            two complete copies               -> colder one stays
//	retire   when the old copy's last reader let go: rename it to    colder whole, hotter copy whole,
//	         .deleted (.log first), unlink, sync directory           in part or .deleted               -> hotter removed
//
// A move to a hotter tier takes the same steps, and a crash that leaves two complete copies takes it back: the colder one
// stays. Only where a power cut came between the names that retire takes from it, and it lacks an index, the hotter one does.
//
// So at every moment there is a complete, verified copy, and after Sweep exactly one. Before Sweep removes the hotter of
// two copies it makes the colder one's name durable, since a killed process may not have come to that. A colder copy that
// is not the same as the hotter one was not made by these steps; it is put into quarantine/ and reported.
//
// Errors and cancellation, at any chunk: everything made in the target is removed and the source, never written to, stays
// in use. A failed sync of the copy is final for that copy (its bytes may be lost from the cache): it is removed, not
// synced again. A sync error of the target does not fence the tier by itself: Events.End gives the owner the error.
//
// What is found on the way: any flipped bit of the .log, before the copy, on the way or in the target, given that the job
// says what the checksum of a batch does not cover (Dense for base offsets, EpochAt for leader epochs); any change of an
// index that would send a lookup to a wrong place. A damaged source is not moved and not removed; it is reported once.
//
// # Identity
//
// `lagoon.tier` in a tier's root is JSON: version, tier, uuid, cluster_id. A tier that the catalogue knows is refused when
// the file is absent (not mounted) or another's; nothing is ever adopted in its place. The hottest tier of a new
// cluster cannot be told from an unmounted one by this: its catalogue would be missing as well.
//
// # Concurrency and ownership
//
// Plan, ParsePolicy: pure. Migrate, RemoveSegment: any number at a time for different segments. Sweep: before anyone else
// uses the partition's directories. Migrator: all methods safe; Run has one goroutine per device, which runs one migration
// at a time, and more only beside one that a directory holds up; no lock is held while callbacks run. Before a partition's directory is renamed or removed: make Prepare and
// Publish answer ErrGone, then Migrator.CancelWhere.
//
// A migration gives way to foreground work at its Gate, asked before each transfer, which is as small as the gate says and
// at most ChunkBytes; the target is synced every 2 to 8 MiB so that no sync holds the device for long.
package tiering
