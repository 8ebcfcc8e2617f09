// Package spindle is the model of a hard disk with one head: when is which request done. It is pure: times go in and come out, no
// clock, no bytes, no goroutine; internal/lab serves a file at its pace.
//
//	reads ───► queue (32) ──┐ elevator: shortest positioning first, with deadlines
//	                        ├──► head: seek by distance + rotation by angle + transfer ──► done
//	writes ──► write cache ─┘
//	flush: done when the writes before it have left the cache
//
// What is modelled, and why it matters to a broker. A head that moves: two streams cost a seek per turn, so a large quantum pays.
// Rotation: the platter's angle is a function of time and position; a request that comes too late waits for a turn. The drive's
// read-ahead: the head reads on while nothing is asked of it, and a little even when something is, once a stream is seen; without it
// no stream with one request in flight could be sequential. The write cache: writes are done when they are in it, and go to the
// platter in the elevator's order when the head has no reads, when the cache fills, when they grow old, and all of them at a flush.
//
// What is not modelled: zones (all tracks are as fast as the outer ones), head switches, remapped sectors, retries, and the bus, which
// nobody waits for here.
package spindle
