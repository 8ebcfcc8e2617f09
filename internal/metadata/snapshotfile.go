package metadata

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"

	"lagoon/internal/quotas"
)

// A snapshot file holds the whole catalogue of one moment, big-endian:
//
//	magic "LGNMSNAP" | format u32 | generation u64 | version u64 | cluster id (22 bytes) | records u32
//	then per record: length u32, the record as in the log; last CRC32C of everything before it
const (
	snapshotMagic      = "LGNMSNAP"
	snapshotFormat     = 1
	snapshotHeaderSize = 8 + 4 + 8 + 8 + 22 + 4
	maxSnapshotBytes   = 1 << 30
)

// emptySnapshot is the catalogue with nothing in it.
func emptySnapshot(clusterID string) *Snapshot {
	return &Snapshot{
		ClusterID: clusterID, Topics: map[string]*Topic{}, TopicsByID: map[ID]*Topic{}, Deleting: map[ID]*Topic{},
		BrokerConfigs: map[string]map[string]string{}, GroupConfigs: map[string]map[string]string{},
		Overrides: map[OverrideKey]Override{}, Quotas: map[quotas.Entity]map[string]float64{}, Tiers: map[string]string{},
	}
}

// next is the successor of s: it shares everything until a record replaces it.
func (s *Snapshot) next() *Snapshot {
	n := *s
	n.Version++
	return &n
}

// records lists what makes s from an empty catalogue, in an order that apply accepts.
func (s *Snapshot) records() []record {
	var out []record
	deleting := slices.SortedFunc(maps.Values(s.Deleting), func(a, b *Topic) int { return slices.Compare(a.ID[:], b.ID[:]) })
	for _, t := range deleting { // before the topics: names may be the same
		out = append(append(out, t.records()...), topicDelete{t.ID})
	}
	for _, name := range s.names {
		out = append(out, s.Topics[name].records()...)
	}
	for _, node := range slices.Sorted(maps.Keys(s.BrokerConfigs)) {
		out = append(out, brokerConfigs{node, s.BrokerConfigs[node]})
	}
	for _, group := range slices.Sorted(maps.Keys(s.GroupConfigs)) {
		out = append(out, groupConfigs{group, s.GroupConfigs[group]})
	}
	overrides := slices.SortedFunc(maps.Values(s.Overrides), compareOverrides)
	for _, o := range overrides {
		out = append(out, overridePut{o})
	}
	for _, e := range slices.SortedFunc(maps.Keys(s.Quotas), quotas.Entity.Compare) {
		out = append(out, quotaLimits{e, s.Quotas[e]})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Tiers)) {
		out = append(out, tierPut{name, s.Tiers[name]})
	}
	if s.NextProducerID > 0 {
		out = append(out, producerIDs{s.NextProducerID})
	}
	return out
}

func (t *Topic) records() []record {
	if len(t.Pins) == 0 {
		return []record{topicPut{t}}
	}
	return []record{topicPut{t}, topicPins{t.ID, t.Pins}}
}

func encodeSnapshot(s *Snapshot, generation uint64) []byte {
	records := s.records()
	b := append([]byte(nil), snapshotMagic...)
	b = binary.BigEndian.AppendUint32(b, snapshotFormat)
	b = binary.BigEndian.AppendUint64(b, generation)
	b = binary.BigEndian.AppendUint64(b, s.Version)
	b = append(b, s.ClusterID...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(records)))
	for _, r := range records {
		at := len(b)
		b = appendRecord(append(b, 0, 0, 0, 0), r)
		binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeSnapshot reads a snapshot file. The result is private: records may be applied to it in place. Errors: ErrNewer, *CorruptError with Path left to the caller.
func decodeSnapshot(b []byte, generation uint64) (*Snapshot, error) {
	corrupt := func(pos int, format string, args ...any) error {
		return &CorruptError{Pos: int64(pos), Reason: fmt.Sprintf(format, args...)}
	}
	if len(b) < snapshotHeaderSize+4 || string(b[:8]) != snapshotMagic {
		return nil, corrupt(0, "not a catalogue snapshot (%d bytes)", len(b))
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return nil, corrupt(len(body), "checksum %08x, want %08x", got, sum)
	}
	if f := binary.BigEndian.Uint32(b[8:]); f != snapshotFormat {
		return nil, fmt.Errorf("%w: snapshot format %d, this release reads %d", ErrNewer, f, snapshotFormat)
	}
	if g := binary.BigEndian.Uint64(b[12:]); g != generation {
		return nil, corrupt(12, "generation %d in a file named %d", g, generation)
	}
	clusterID := string(b[28:50])
	if !validClusterID(clusterID) {
		return nil, corrupt(28, "cluster id %q", clusterID)
	}
	s := emptySnapshot(clusterID)
	s.private = true
	s.Version = binary.BigEndian.Uint64(b[20:])
	count, pos := binary.BigEndian.Uint32(b[50:]), snapshotHeaderSize
	for range count {
		if len(body)-pos < 4 || int64(binary.BigEndian.Uint32(body[pos:])) > int64(len(body)-pos-4) {
			return nil, corrupt(pos, "%d records announced, the file ends early", count)
		}
		n := int(binary.BigEndian.Uint32(body[pos:]))
		rec, err := decodeRecord(body[pos+4 : pos+4+n])
		if errors.Is(err, ErrNewer) {
			return nil, err
		}
		if err == nil {
			err = rec.apply(s)
		}
		if err != nil {
			return nil, corrupt(pos, "%v", err)
		}
		pos += 4 + n
	}
	if pos != len(body) {
		return nil, corrupt(pos, "%d bytes after the last record", len(body)-pos)
	}
	return s, nil
}

func compareOverrides(a, b Override) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
}
