// Package admission decides how each read is served and when each cold read may start.
//
// It answers four questions:
//
//   - What is this reader? Readers keeps one state per consumer and partition.
//   - Which lane? Decide chooses hot, fill, bypass or defer for one read of one partition.
//   - Whose turn is it on this device? Scheduler shares a device's cold budget between flows (consumer groups, or client ids
//     while the group is not known), under the caps and weights of Limits.
//   - How much may a device do for cold reads? Controller finds the budget by the harm that they do.
//
// It is not a rate limiter for clients: hot reads and real-time misses are never delayed here, and nothing in it waits. It
// performs no I/O, reads no clock, starts no goroutine, and imports the standard library only. Time comes in as an
// argument, so every decision can be replayed; testdata/*.txt are such replays, one story per file.
//
// # Readers
//
// A reader is outside its window when both hold:
//
//	it is behind the end by more than min_bytes   (256 MiB; in this partition, or in all partitions of its flow together)
//	what it reads next is older than min_age      (60 s; not known counts as older)
//
// Both, because either alone is harmless: two seconds of a fast topic, or a week of a slow one. The sum over the flow counts
// only positions that are older than min_age themselves; it catches the backlog that is spread thinly over many partitions.
// A reader that is behind by more than memory can keep for it (SetMaxBytes) is outside however young that is: a replay of
// gigabytes that were written a moment ago would take the place of everybody's tail.
// `lagging_when.behind = "resident"` is the first rule of Decide: what is resident is served from memory whatever the state.
//
//	           at the end, or            outside the window
//	first ──►  inside the window  ──────────────────────────────────┐
//	fetch            │                                              ▼
//	                 ▼          outside the window             ┌─────────┐
//	           ┌──────────┐ ─────────────────────────────────► │ lagging │
//	           │ realtime │                                    └─────────┘
//	           └──────────┘                  distance shrinks    │     ▲  distance grows
//	                 ▲                       over 15 s, or below ▼     │  (judged every 5 s)
//	                 │  at the end: at once;  half the window ┌─────────────┐
//	                 └─────────────────────────────────────── │ catching_up │
//	                    below half the window for settle_for  └─────────────┘
//
//	any of them ── data ahead, position stands still for stall_after, not held back by us ──► stalled
//	any of them ── no fetch for stop_after ──► stopped ── forget_after ──► gone
//	stalled     ── moves ──► where its window says, with the hysteresis it had
//	stopped     ── asks  ──► judged by its position at once, as a first fetch
//
// Half the window means half of min_bytes or half of min_age: the same rule with both figures halved. Between half and full
// nothing changes. States are derived from facts (last fetch, last progress, distance), not stepped, so no order of calls
// can leave a reader in a wrong one.
//
// # Lanes
//
// See Decide for the rules in their order. A defer is not an error: the caller leaves the partition out of this answer.
//
// # Scheduler
//
//	           flow group:a  ──► stream (client, topic) ─► requests      caps: flow, client, topic
//	reads ──►  flow group:b  ──► …                                       (those of a stream are the same,
//	           flow client:c ──► …                                        so a capped topic blocks its stream only)
//	             │  deficit round robin, quantum × weight / 100
//	             ▼
//	       global cap ──► device rate ──► slots (MaxInFlight) ──► Next
//	             ▲
//	migrations ──┘  when no read can go, or when their share (5 %) of the bytes is due; a quarter of the slots
//
// Buckets are charged when a request starts and corrected at Done. Over any time t a cap of r lets pass at most
// r·t + max(burst, largest request); burst is 400 ms of the rate. For small caps ask in small requests: a cap is kept in
// bytes, however large the chunks are, but nothing is cut here. A request larger than a burst passes when the bucket is full
// and leaves a debt, so it delays its own flow and not others.
//
// A flow that a cap holds back is passed over; what it leaves goes to the others. A round may take longer than its bucket lasts:
// when tokens would be lost it goes early, before the flow whose turn it is, with its quantum of the round. So a cap below the flow's share is
// what it gets, within 5 % in ten seconds. On a rotating disk that costs seeks, some two or three a second: it goes early as late
// as it can, and between two turns rather than in the middle of one. When the device's own tokens are short, the flow whose turn it is waits for them and keeps its turn. A flow counts as backlogged
// while it has a request queued: a consumer that keeps fewer requests outstanding than the device has slots
// is limited by itself, and no scheduler can give it more without leaving the device idle.
//
// Seams: SetBudget is where a controller sets a device's budget, Limits.SetConfig where the global ones change; Limits.weight is
// the one place that knows a flow's share.
//
// A rotating disk is at one place at a time (pass.go): its requests go by position, in runs of one quantum, and the flows of a
// round are put in that order when the round begins, so that shares stay what they are. What waits beyond the deadline goes
// first. A second request is in flight only where it follows on the first, and starts a moment later, so that the disk gets them in order.
//
// Where files sync on the same disk, a Gate lets syncs and cold reads take turns: windows in which all that are due sync, and
// slots as long as the window before in which reads go on, if there are any.
//
// Members of a convoy pay for what they get with their share of the turns (Share, DoneShared) and not with the device's budget.
//
// # Retention race
//
// Retention deletes what is too old or too much, read or not, as in Kafka. Races predicts, from a reader's speed and the times
// at which the segments before it go, what it will lose, and gives its flow the weight with which it loses nothing:
//
//	needed  = the largest of (bytes to the end of a segment) / (time until it goes), over the segments that can be won
//	share   = needed × 1.25 / what the device gives; all racing flows together at most 0.9, least need first
//	weight  = share / (1 − all shares) × weight of the flows that are not in danger, never below its own
//
// Up at once, down by a tenth a second, so that a race just won is not lost again. What cannot be won (the device, or a cap,
// which a race never lifts) is said with the bytes that go. A boost changes Limits.weight and nothing else.
//
// # Controller
//
//	counts since the last tick ──► gauge per signal ──► worst harm ──► budget: bytes per second, slots, state, reason
//
// Signals are the harm itself: append until durable, sync, record readable until handed to the socket, real-time reads that
// missed, hot pages that were evicted; and what comes before it on a small machine: goroutines and tasks that wait for a core.
//
// Each gauge learns its undisturbed level from windows of about a second without cold reads to speak of: the median of their
// p99s (means, rates). Too much is what lies more than 10 % and a millisecond above it, 40 % and five on a rotating disk, and above
// nine in ten of those windows; or above protect_tail_p99. Harm is proven by a sum (CUSUM): samples above the threshold count up, more than one in a hundred of them
// is needed, and undisturbed times set how much is chance. So one bad tick is no harm, grave harm takes 0.2 s, and a p99 that
// is barely too high takes a second or two.
//
//	no real-time path at work                          unlimited
//	its undisturbed level is not known yet             learning: the floor
//	harm ─ a third of the samples or far beyond        half, again after 0.3 s
//	     ─ else                                        ×0.88, again after 1 s
//	well ─ below 70 % of the last harmful rate         ×4 a second
//	     ─ below 95 %                                  10 % of it a second
//	     ─ at 95 %                                     holding: 4 s, doubled to 60 s each time that it was harmful again
//	     ─ then                                        5 % of it a second, and from 120 % on it is forgotten
//
// Cores that are scarce are blamed on cold reads from 64 MiB/s on: below it they cost some 3 % of one; on a rotating disk from 256 MiB/s on, which
// is more than one of them gives. Slow syncs, appends and fetches
// are blamed on cold reads that occupy an SSD or NVMe device 10 % of the time or more: below that it is not their doing, and what
// is measured meanwhile counts as undisturbed.
//
// Harm at the floor is somebody else's: what is measured there is quiet, and becomes the undisturbed level within half a ring
// of windows. Harm far below the last harmful rate may be chance, and lowers that rate by half at most.
//
// # Concurrency and ownership
//
// Nothing here is safe for concurrent use. Readers has a lock of its own; Limits and all Schedulers made with it share one.
// Strings that are kept are copied. Everything is bounded: Config.MaxReaders, DeviceConfig.MaxQueued and MaxFlows,
// MaxOverrides. Nothing survives a restart except what the caller persists: configured caps and overrides.
package admission
