// Package records looks into record batches: it decompresses one and walks its records. The broker does so only where it
// must (a lookup by timestamp, compaction, keys of a compacted topic); the other paths move batches as they are.
// A Packer compresses records again, with the codec that the producer chose and a level of its own.
//
// It is not a codec of the broker's own: gzip, snappy, lz4 and zstd are the libraries'. It bounds what they may produce
// (MaxBytes), because a batch of a megabyte can unpack to nine gigabytes of zeros.
//
// Safe for concurrent use; decoders are pooled. Source: KIP-98 (format), KIP-110 (zstd), xerial snappy-java (framing).
package records
