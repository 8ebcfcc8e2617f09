// Package hostile does to the real binary what clients must not be able to do: claim huge frames, send bombs and garbage, dawdle, stop
// reading, keep hundreds of connections half open. Each time the broker must live, keep its memory bounded (seen in
// /proc/PID/status, from this process), and serve a well-behaved client meanwhile as if nothing was.
//
// It is not a fuzzer: those run in internal/broker and internal/broker/wire, next to the decoders.
package hostile
