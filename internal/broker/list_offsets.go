package broker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/partition"
	"lagoon/segment"
)

// ListOffsets (key 2)
//
// Behaviour:
//   - Consumers are told nothing they cannot read: the latest offset is the high watermark (the last stable offset for
//     read_committed), and a record found by time beyond it counts as none: offset and timestamp -1 without an error.
//   - A lookup by time may read a cold tier; it holds up only the connection that asked, for TimeoutMillis at most (v10+).
//
// Version notes: -3 (largest timestamp) from v7 (KIP-734), -4 (start of the hottest tier) from v8, -5 (end of what colder
// tiers hold) from v9 (KIP-1005), -6 (start of what they do not hold yet) from v11 (KIP-1023); below those versions a
// special timestamp is answered with UNSUPPORTED_VERSION.
const (
	timeLatest                = -1
	timeEarliest              = -2
	timeMax                   = -3
	timeEarliestLocal         = -4
	timeLatestTiered          = -5
	timeEarliestPendingUpload = -6
)

// specialSince is the first version that knows each special timestamp.
var specialSince = map[int64]int16{
	timeLatest: 0, timeEarliest: 0, timeMax: 7, timeEarliestLocal: 8, timeLatestTiered: 9, timeEarliestPendingUpload: 11,
}

func (b *Broker) handleListOffsets(ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.ListOffsetsRequest)
	resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
	if r.version >= 10 && req.TimeoutMillis > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(req.TimeoutMillis)*time.Millisecond)
		defer cancel()
	}
	snap := b.meta.Snapshot()
	resp.Topics = make([]kmsg.ListOffsetsResponseTopic, 0, len(req.Topics))
	seen := map[string]map[int32]bool{} // Kafka: a partition asked for twice is INVALID_REQUEST
	for _, t := range req.Topics {
		out := kmsg.NewListOffsetsResponseTopic()
		out.Topic, out.Partitions = t.Topic, make([]kmsg.ListOffsetsResponseTopicPartition, 0, len(t.Partitions))
		topic, err := findTopic(snap, false, t.Topic, [16]byte{})
		if seen[t.Topic] == nil {
			seen[t.Topic] = map[int32]bool{}
		}
		for _, p := range t.Partitions {
			part := kmsg.NewListOffsetsResponseTopicPartition()
			part.Partition = p.Partition
			part.Timestamp, part.Offset, part.LeaderEpoch = -1, -1, -1
			err := err
			if seen[t.Topic][p.Partition] {
				err = kerr.InvalidRequest
			}
			seen[t.Topic][p.Partition] = true
			var log partitionLog
			if err == nil {
				log, err = b.partitionOf(topic, p.Partition)
			}
			if err == nil {
				err = checkEpoch(p.CurrentLeaderEpoch, log.Offsets())
			}
			var found partition.TimestampOffset
			if err == nil {
				found, err = lookup(ctx, log, r.version, p.Timestamp, req.IsolationLevel == 1)
			}
			if err != nil {
				part.ErrorCode = b.code(err, "list offsets")
				b.metrics.failed("ListOffsets", part.ErrorCode)
			} else {
				part.Timestamp, part.Offset, part.LeaderEpoch = found.TimestampMs, int64(found.Offset), found.LeaderEpoch
			}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// lookup answers one partition.
func lookup(ctx context.Context, log partitionLog, version int16, timestamp int64, committed bool) (partition.TimestampOffset, error) {
	if timestamp < 0 {
		since, known := specialSince[timestamp]
		if !known || version < since {
			return partition.TimestampOffset{}, kerr.UnsupportedVersion
		}
	}
	o := log.Offsets()
	readable := o.HighWatermark
	if committed {
		readable = o.LastStable
	}
	at := func(offset segment.Offset) (partition.TimestampOffset, error) {
		return partition.TimestampOffset{Offset: offset, TimestampMs: -1, LeaderEpoch: o.LeaderEpoch}, nil
	}
	none := partition.TimestampOffset{Offset: -1, TimestampMs: -1, LeaderEpoch: -1}
	var found partition.TimestampOffset
	var err error
	switch timestamp {
	case timeLatest:
		return at(readable)
	case timeEarliest:
		return at(o.LogStart)
	case timeEarliestLocal:
		return at(max(o.LocalStart, o.LogStart))
	case timeLatestTiered:
		latest, _ := log.TieredOffsets()
		if latest < 0 {
			return none, nil
		}
		return at(latest)
	case timeEarliestPendingUpload:
		_, earliest := log.TieredOffsets()
		if earliest < 0 {
			return none, nil
		}
		return at(earliest)
	case timeMax:
		found, err = log.MaxTimestamp(ctx)
	default:
		found, err = log.OffsetForTime(ctx, timestamp)
	}
	if err != nil {
		return none, err
	}
	if found.Offset < 0 || found.Offset >= readable {
		return none, nil
	}
	return found, nil
}
