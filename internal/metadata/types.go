package metadata

import (
	"crypto/rand"
	"encoding/base64"
	"maps"
	"slices"
	"strconv"

	"lagoon/internal/quotas"
)

// ID is a topic id (KIP-516), or another 128-bit random identity. The zero ID means absent.
type ID [16]byte

// String is the form Kafka's tools print: 22 characters of unpadded base64url.
func (id ID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// NewID makes a random UUID (version 4). Like Kafka it avoids ids whose text starts with a dash, which command lines
// take for a flag. The version bits keep it clear of Kafka's reserved ids 0 and 1.
func NewID() ID {
	for {
		var id ID
		rand.Read(id[:]) // never fails (crypto/rand)
		id[6] = id[6]&0x0f | 0x40
		id[8] = id[8]&0x3f | 0x80
		if id.String()[0] != '-' {
			return id
		}
	}
}

// Topic is one topic. Values reached from a Snapshot are shared and must not be changed.
type Topic struct {
	Name       string
	ID         ID
	Partitions int32             // > 0; partition numbers are [0, Partitions)
	Configs    map[string]string // what was set on the topic itself, by Kafka's names; never nil in a Snapshot
	CreatedMs  int64             // Unix time
	// Pins: partitions whose sealed segments an operator wants in one log directory, by its name. nil: none.
	Pins map[int32]string
}

// Override is one persisted throttle rule of the operator. It mirrors admission.Override without importing it.
type Override struct {
	Kind           string // "group", "client" or "topic"
	Name           string
	BytesPerSecond int64   // 0: no cap
	Weight         float64 // 0: the default weight
	ExpiresMs      int64   // Unix time; 0: never
	Reason         string
}

// OverrideKey names an override.
type OverrideKey struct{ Kind, Name string }

// Snapshot is the whole catalogue at one moment. It is immutable and shared: callers must not change anything they
// reach from it. Loading one costs an atomic read.
type Snapshot struct {
	// Version grows with every change, also across restarts.
	Version uint64
	// ClusterID is 22 characters of base64url, chosen when the catalogue was made.
	ClusterID string
	// Topics by name, TopicsByID by id.
	Topics     map[string]*Topic
	TopicsByID map[ID]*Topic
	// Deleting holds topics whose deletion is durable but whose files may still exist. They are not topics any more.
	// Whoever removes their files calls Store.FinishDelete; the record is what entitles a start-up to remove them.
	Deleting map[ID]*Topic
	// BrokerConfigs holds the dynamic broker configs by resource name: "" for the cluster default, else the node id.
	BrokerConfigs map[string]map[string]string
	// GroupConfigs holds the dynamic group configs by group id.
	GroupConfigs map[string]map[string]string
	Overrides    map[OverrideKey]Override
	// Quotas holds the client quotas: per entity the limits by Kafka's names.
	Quotas map[quotas.Entity]map[string]float64
	// Tiers maps a tier's name to the identity its directory must show.
	Tiers map[string]string
	// NextProducerID is the first producer id that was never handed out.
	NextProducerID int64

	names []string
	// private: nobody else holds this snapshot or its maps yet, so records change them in place. Set while files are
	// read: copying maps for each record would make a start quadratic in the number of topics.
	private bool
}

// Topic looks a topic up by name.
func (s *Snapshot) Topic(name string) (*Topic, bool) {
	t, ok := s.Topics[name]
	return t, ok
}

// TopicByID looks a topic up by id; the zero ID is never found.
func (s *Snapshot) TopicByID(id ID) (*Topic, bool) {
	t, ok := s.TopicsByID[id]
	return t, ok
}

// Names gives all topic names, sorted. The slice is shared.
func (s *Snapshot) Names() []string { return s.names }

// DeletingName tells whether files of a deleted topic of this name may still exist.
func (s *Snapshot) DeletingName(name string) (*Topic, bool) {
	for _, t := range s.Deleting {
		if t.Name == name {
			return t, true
		}
	}
	return nil, false
}

// Partitions is the number of partitions of all topics.
func (s *Snapshot) Partitions() int {
	n := 0
	for _, t := range s.Topics {
		n += int(t.Partitions)
	}
	return n
}

func (s *Snapshot) insertName(name string) {
	if i, found := slices.BinarySearch(s.names, name); !found {
		s.names = slices.Insert(s.ownNames(), i, name)
	}
}

func (s *Snapshot) removeName(name string) {
	if i, found := slices.BinarySearch(s.names, name); found {
		s.names = slices.Delete(s.ownNames(), i, i+1)
	}
}

func (s *Snapshot) ownNames() []string {
	if s.private {
		return s.names
	}
	return slices.Clone(s.names)
}

// own gives a map of s that may be changed.
func own[K comparable, V any](s *Snapshot, m map[K]V) map[K]V {
	if s.private {
		return m
	}
	return maps.Clone(m)
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
