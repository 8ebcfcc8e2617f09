// Package journal is the commit journal of a log directory: two files of fixed size into which what was appended to any log is copied, one
// sequential write and one flush of the device for all logs that wait. It knows the format, writes rounds and replays them. It has no policy
// and no goroutine: when to commit, when to turn, and when the segment files are stable is its owner's matter (internal/partition).
//
//	appends to many logs                    commit-journal.0   header │ round 7 │ round 8 │ round 9 │ older bytes
//	      │                                 commit-journal.1   header │ round 4 │ round 5 │ round 6 │ older bytes
//	      ▼
//	Begin, Add ... ─► Commit: one write, durable ─► ack     later: segment files are written and synced in large pieces
//	                                                               │
//	        after a crash: Replay ─► segment files, synced         ▼ all that is in the other file is stable
//	                            └──► Open: empties              Turn: the next round begins that file
//
// docs/formats/commit-journal.md has the bytes, docs/decisions/0002 the reason.
//
// # What survives a crash
//
//	Commit returned nil     the round is given by every Replay until its file is begun anew (Turn and the Commit after it), or emptied
//	Commit returned error   the round may be given, whole, or not at all; ErrFailed from then on
//	power cut in Commit     the same
//	Turn                    changes nothing on disk. The Commit after it first makes a new header durable, which ends the other file's rounds
//	Open, Reset             once they returned nil nothing is given; while they run, the older file is emptied before the newer one
//	making a file           under a temporary name, synced, then renamed: a file with its name is whole
//
// A round is given whole or not at all, and rounds come in the order of their commits. The last one may be torn, since nobody was told of it:
// it is left out and counted. One that is bad in front of good ones of its file, or that is missing between the files, was acknowledged: that is
// damage, told with its place (DamageError), and what follows it is given all the same. Damage to the very last round cannot be told from a
// torn one.
//
// What a file holds from before its header was written is never taken for rounds of now, and neither is what a client sent, though it may look
// like one: each header draws a key at random that its rounds carry, and the key never leaves the file.
//
// # Files
//
// Both are written with zeros in full when they are made, so that later writes change no metadata: a Commit is data and a flush. They are
// written around the page cache (vfs.DirectSync), or, where that is not possible, through it and synced. A file that is missing, of another
// size or without a readable header is made anew by Open. A file of a newer format is never changed (ErrVersion).
//
// # Ownership, concurrency, errors
//
// A Journal belongs to one committer and is not safe for concurrent use. The slices that Add returns are the journal's until Commit, those of
// Replay until apply returns. Any failed write is final (ErrFailed): the log directory is to be fenced. A Journal holds MaxRound bytes of memory
// outside Go's heap until Close.
package journal
