// Package records looks into record batches: it decompresses one and walks its records. The broker does so only where it
// must (a lookup by timestamp, later compaction); the produce and fetch paths move batches as they are.
//
// It is not a codec of the broker's own: gzip, snappy, lz4 and zstd are the libraries'. It bounds what they may produce
// (MaxBytes), because a batch of a megabyte can unpack to nine gigabytes of zeros.
//
// Safe for concurrent use; decoders are pooled. Source: KIP-98 (format), KIP-110 (zstd), xerial snappy-java (framing).
package records
