package bench

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"time"
)

// schedule says when each record of a topic is due: record k at start + k/rate, rounded up, in partition k mod partitions.
type schedule struct {
	start      int64 // ns since 1970
	rate       int64 // records per second
	partitions int64
}

// at is when record k is due, in ns since 1970.
func (s *schedule) at(k int64) int64 {
	whole, part := k/s.rate, k%s.rate
	return s.start + whole*int64(time.Second) + (part*int64(time.Second)+s.rate-1)/s.rate
}

// due is how many records are due at a time.
func (s *schedule) due(now int64) int64 {
	since := now - s.start
	if since < 0 {
		return 0
	}
	whole, part := since/int64(time.Second), since%int64(time.Second)
	return whole*s.rate + part*s.rate/int64(time.Second) + 1
}

// inPartition is how many of the first n records are in a partition.
func (s *schedule) inPartition(n, partition int64) int64 {
	return (n + s.partitions - 1 - partition) / s.partitions
}

// atSequence is when a partition's record is due.
func (s *schedule) atSequence(partition, sequence int64) int64 {
	return s.at(sequence*s.partitions + partition)
}

// A record's value: magic, run, partition, sequence, due time, CRC-32C of all but itself, random bytes.
const (
	valueHeader = 44
	valueMagic  = 0x6c6f6164 // "load"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// noise is random bytes to cut incompressible payloads from; odd steps make neighbours differ.
type noise []byte

func newNoise(seed uint64) noise {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// fill writes n bytes that depend on k.
func (b noise) fill(p []byte, k int64) {
	from := int(uint64(k) * 1031 % uint64(len(b)))
	for len(p) > 0 {
		n := copy(p, b[from:])
		p, from = p[n:], 0
	}
}

// encodeValue fills a value of the wanted length, at least valueHeader.
func encodeValue(v []byte, run uint64, partition, sequence, due int64, random noise) {
	be := binary.BigEndian
	be.PutUint32(v, valueMagic)
	be.PutUint64(v[4:], run)
	be.PutUint32(v[12:], uint32(partition))
	be.PutUint64(v[16:], uint64(sequence))
	be.PutUint64(v[24:], uint64(due))
	be.PutUint64(v[32:], uint64(len(v)))
	random.fill(v[valueHeader:], sequence*31+partition)
	be.PutUint32(v[40:], checksum(v))
}

func checksum(v []byte) uint32 {
	return crc32.Update(crc32.Checksum(v[:40], castagnoli), castagnoli, v[valueHeader:])
}

// value is what a record says of itself.
type value struct {
	run                      uint64
	partition, sequence, due int64
}

var errCorrupt = errors.New("not what was produced")

// decodeValue verifies a value.
func decodeValue(v []byte) (value, error) {
	if len(v) < valueHeader || binary.BigEndian.Uint32(v[40:]) != checksum(v) {
		return value{}, errCorrupt
	}
	return decodeHeader(v)
}

// decodeHeader reads a value that need not be verified: the process's own.
func decodeHeader(v []byte) (value, error) {
	be := binary.BigEndian
	if len(v) < valueHeader || be.Uint32(v) != valueMagic || be.Uint64(v[32:]) != uint64(len(v)) {
		return value{}, errCorrupt
	}
	return value{run: be.Uint64(v[4:]), partition: int64(be.Uint32(v[12:])), sequence: int64(be.Uint64(v[16:])), due: int64(be.Uint64(v[24:]))}, nil
}
