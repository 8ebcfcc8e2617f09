// Package quotas is the arithmetic of Kafka's client quotas: who is meant by an entity, which limit holds for a client, and how
// long a client that went over it has to wait.
//
// It is pure: no I/O, no clock, no goroutine, no lock. internal/metadata keeps the limits, internal/broker measures, mutes
// connections and answers. It is not the budget of cold reads (package admission), which never speaks in throttle times.
//
//	entities with limits ──► Table: the limit of a client, by Kafka's eight levels
//	                            │
//	bytes, time, now ──────► Meters: one rate per limited client ──► how long it waits
//
// # Who is meant
//
// An entity names a user, a client id, both, or an address; each by name or as the default for those without a limit of their
// own. The first level that has a limit of the key holds, and names who shares it (KIP-55, KIP-257):
//
//	1 user and client id   2 user and default client id   3 user
//	4 default user and client id   5 default user and default client id   6 default user
//	7 client id   8 default client id
//
// At 1, 2, 4 and 5 each pair of user and client id has a rate of its own, at 3 and 6 each user, at 7 and 8 each client id.
//
// # Rates
//
// Bytes and time are counted in 11 windows of one second (quota.window.num, quota.window.size.seconds) as Kafka's SampledStat and
// Rate do: the sum of the windows over the time they span, which counts as 10 full windows at least, so that a second of traffic
// after a pause is not a rate of its own. Who is over the limit waits until the rate is down to it if nothing more comes:
// (rate - limit) / limit of the span. Mutations of the catalogue take tokens instead (KIP-599): a bucket of 11 seconds' worth, in
// which one request may make a debt.
//
// # Memory
//
// A rate that has recorded nothing for 11 s, and a bucket that is full again, are as good as new ones and are forgotten. There are
// at most MaxMeters; past that newcomers under one default share one, so that a client that invents ids gains nothing by it, and who
// has a limit by name loses nothing.
package quotas
