// Package conf reads Lagoon's configuration: strict TOML with units, every fault reported at once, and the origin of
// every value kept.
//
// It is not a place for policy: it knows keys, types, limits and contradictions, and nothing about what the daemon does
// with a value. It opens one file for reading and nothing else; the daemon checks paths when it opens them.
//
// A value comes from the last of these layers that sets it:
//
//	default.toml (embedded; also the commented file that is shipped)
//	preset       (what `lagoon dev` changes)
//	the file     (-c lagoon.toml)
//	environment  LAGOON_STORAGE__SEGMENT_BYTES=64MiB
//	--set        storage.segment_bytes=64MiB
//
// [[storage.tier]] tables of a layer replace all tiers of the layers below; environment and --set reach a tier by its
// name: storage.tier.hdd.path.
//
//	file text ──► toml (syntax) ──► tree of values ──┐
//	         └──► scan (positions of keys) ──────────┤
//	                                                 ▼
//	                       assign: schema by reflection over Config; unknown keys, types, units
//	                                                 ▼
//	                       check: limits and contradictions over the whole Config
//	                                                 ▼
//	                       *Config, or Problems (all of them, sorted by place)
//
// The schema is the Config struct itself: `toml` tags name keys, `kafka` tags list the names Kafka uses for the same
// thing (only for suggestions), `unlimited:"yes"` allows the word unlimited.
//
// [topic_defaults] is the one open table: topic settings by Kafka's names, with or without quotes around their dots. This package
// refuses those for which [storage] has a key; cmd/lagoon, which knows all of them, checks names and values.
//
// Units are required and never guessed: KiB is 1024, KB is 1000; times need ms, s, m, h or d. Negative values, overflow
// and bare numbers are refused.
//
// A Config is plain data; it is not changed after Load and may be shared between goroutines.
package conf
