package wire

import "unsafe"

// FetchRequest is a Fetch request v4 to v18, topics flattened into partitions: an empty topic then costs no memory,
// which a request of millions of them would otherwise blow up to 20 times its size.
type FetchRequest struct {
	ReplicaID    int32 // -1: a consumer; from v15 on out of a tag
	MaxWaitMs    int32
	MinBytes     int32
	MaxBytes     int32
	Committed    bool // isolation level read_committed
	SessionID    int32
	SessionEpoch int32 // -1 before v7
	Partitions   []FetchPartition
	Forgotten    []ForgottenPartition
	Rack         string
}

// FetchPartition is one partition that a client wants. Topic aliases the request.
type FetchPartition struct {
	Topic              string   // v4-v12
	TopicID            [16]byte // v13+
	Partition          int32
	CurrentLeaderEpoch int32 // -1: unknown
	FetchOffset        int64
	LastFetchedEpoch   int32 // -1: unknown
	MaxBytes           int32
}

// ForgottenPartition is one partition that leaves the session. Topic aliases the request.
type ForgottenPartition struct {
	Topic     string
	TopicID   [16]byte
	Partition int32
}

// Read decodes body (what follows the request header with its tags) and reuses the slices of f.
// Errors: ErrMalformed, ErrTooMany.
func (f *FetchRequest) Read(version int16, body []byte) error {
	*f = FetchRequest{ReplicaID: -1, SessionEpoch: -1, Partitions: f.Partitions[:0], Forgotten: f.Forgotten[:0]}
	flexible := version >= 12
	r := NewReader(body)
	if version <= 14 {
		f.ReplicaID = r.Int32()
	}
	f.MaxWaitMs, f.MinBytes, f.MaxBytes = r.Int32(), r.Int32(), r.Int32()
	f.Committed = r.Int8() == 1
	if version >= 7 {
		f.SessionID, f.SessionEpoch = r.Int32(), r.Int32()
	}
	for range r.Count(flexible, 5) {
		f.readTopic(&r, version, flexible)
		if r.bad {
			break
		}
	}
	if version >= 7 {
		for range r.Count(flexible, 3) {
			f.readForgotten(&r, version, flexible)
			if r.bad {
				break
			}
		}
	}
	if version >= 11 {
		f.Rack = aliased(r.String(flexible))
	}
	if flexible {
		f.readTags(&r, version)
	}
	return r.Err("Fetch")
}

// readTags reads the tag section at the end. What Kafka defines has to be whole, whether or not it is of use here, or is of this version.
func (f *FetchRequest) readTags(r *Reader, version int16) {
	for range r.tagCount() {
		tag, v := r.tag()
		switch tag {
		case 0: // cluster id
			v.CompactNullable()
		case 1: // replica state
			id := v.Int32()
			v.Int64() // replica epoch
			v.SkipTags()
			if version >= 15 {
				f.ReplicaID = id
			}
		default:
			continue
		}
		if v.Err("tag") != nil {
			r.fail()
		}
		if r.bad {
			return
		}
	}
}

// skipPartitionTags steps over the tag section of a partition, in which replicas say who they are and how far they have read.
func skipPartitionTags(r *Reader) {
	for range r.tagCount() {
		tag, v := r.tag()
		if tag == 0 && len(v.src) != 16 || tag == 1 && len(v.src) != 8 { // directory id, high watermark
			r.fail()
		}
		if r.bad {
			return
		}
	}
}

func readTopicName(r *Reader, version int16, flexible bool) (name string, id [16]byte) {
	if version >= 13 {
		return "", r.UUID()
	}
	return aliased(r.String(flexible)), id
}

func (f *FetchRequest) readTopic(r *Reader, version int16, flexible bool) {
	name, id := readTopicName(r, version, flexible)
	for range r.Count(flexible, 16) {
		p := FetchPartition{Topic: name, TopicID: id, Partition: r.Int32(), CurrentLeaderEpoch: -1, LastFetchedEpoch: -1}
		if version >= 9 {
			p.CurrentLeaderEpoch = r.Int32()
		}
		p.FetchOffset = r.Int64()
		if version >= 12 {
			p.LastFetchedEpoch = r.Int32()
		}
		if version >= 5 {
			r.Int64() // log start offset of a follower
		}
		p.MaxBytes = r.Int32()
		if flexible {
			skipPartitionTags(r)
		}
		if r.bad {
			return
		}
		f.Partitions = append(f.Partitions, p)
	}
	if flexible {
		r.SkipTags()
	}
}

func (f *FetchRequest) readForgotten(r *Reader, version int16, flexible bool) {
	name, id := readTopicName(r, version, flexible)
	for range r.Count(flexible, 4) {
		p := ForgottenPartition{Topic: name, TopicID: id, Partition: r.Int32()}
		if r.bad {
			return
		}
		f.Forgotten = append(f.Forgotten, p)
	}
	if flexible {
		r.SkipTags()
	}
}

// aliased views bytes of the frame as a string; it is valid for as long as the frame is.
func aliased(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
