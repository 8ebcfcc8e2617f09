package journal

import (
	"hash/crc32"

	"lagoon/internal/vfs"
)

// Names are those of the two files.
var Names = fileNames

// OpenWithKeys is Open with keys that a test knows.
func OpenWithKeys(fsys vfs.FS, opt Options, newKey func() uint64) (*Journal, error) {
	return open(fsys, opt, newKey)
}

// Round makes a round of one entry, unpadded.
func Round(generation, key, sequence uint64, e Entry, data []byte) []byte {
	b := make([]byte, roundHeaderBytes+entrySize(e.Dir)+len(data))
	e.encode(b[roundHeaderBytes:])
	copy(b[len(b)-len(data):], data)
	roundHeader{generation, key, sequence, len(b), 1}.seal(b)
	return b
}

// Checksum is that of the format.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
