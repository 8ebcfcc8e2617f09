package main

import (
	"context"

	"lagoon/internal/admin"
	"lagoon/internal/groups"
	"lagoon/internal/partition"
	"lagoon/segment"
)

// Groups lists all groups with the lag of their committed offsets. How fast a group catches up is what its readers show.
func (b *backend) Groups(context.Context) ([]admin.Group, error) {
	server := b.server.Load()
	if server == nil {
		return nil, admin.ErrStarting
	}
	type place struct {
		group, topic string
		partition    int32
	}
	readers := map[place]partition.ReaderView{}
	for _, r := range b.store.Readers() {
		if r.Key.Group != "" {
			readers[place{r.Key.Group, r.Key.Topic, r.Key.Partition}] = r
		}
	}
	views, loading := server.Groups()
	if loading { // a part of them would look like all, and a group like none
		return nil, admin.ErrLoading
	}
	out := make([]admin.Group, len(views))
	for i, v := range views {
		g := admin.Group{Group: v.Group, Type: string(v.Type), State: string(v.State), ProtocolType: v.ProtocolType, Members: v.Members,
			Partitions: make([]admin.GroupPartition, len(v.Partitions))}
		unknown := false
		for j, p := range v.Partitions {
			reader, known := readers[place{v.Group, p.Topic, p.Partition}]
			gp := b.groupPartition(p)
			switch {
			case gp.LagRecords == 0:
				gp.ETASeconds = 0
			case known && reader.ETA > 0, known && reader.ETA == 0 && v.Members > 0: // a reader that has left is no hope
				gp.ETASeconds = reader.ETA.Seconds()
			}
			g.LagRecords, g.LagBytes, g.LagSeconds = g.LagRecords+max(0, gp.LagRecords), g.LagBytes+max(0, gp.LagBytes), max(g.LagSeconds, gp.LagSeconds)
			unknown = unknown || gp.LagRecords > 0 && gp.LagSeconds < 0
			switch {
			case gp.ETASeconds < 0 || g.ETASeconds < 0:
				g.ETASeconds = -1
			default:
				g.ETASeconds = max(g.ETASeconds, gp.ETASeconds)
			}
			g.Partitions[j] = gp
		}
		if unknown && g.LagSeconds == 0 {
			g.LagSeconds = -1
		}
		out[i] = g
	}
	return out, nil
}

// groupPartition is the lag of one committed offset.
func (b *backend) groupPartition(p groups.PartitionView) admin.GroupPartition {
	out := admin.GroupPartition{Topic: p.Topic, Partition: p.Partition, CommittedOffset: p.Committed, EndOffset: -1,
		LagRecords: -1, LagBytes: -1, LagSeconds: -1, ETASeconds: -1, ClientID: p.ClientID, Host: p.Host}
	log, ok := b.store.Log(p.Topic, p.Partition)
	if !ok {
		return out
	}
	if p.Committed < 0 {
		out.EndOffset = int64(log.Offsets().HighWatermark)
		return out
	}
	lag := log.LagOf(segment.Offset(p.Committed))
	// Records are counted as Kafka's tools do: from the offset, though some may have been deleted.
	out.EndOffset, out.LagRecords, out.LagBytes = int64(lag.EndOffset), max(0, int64(lag.EndOffset)-p.Committed), lag.Bytes
	out.LagSeconds = seconds(lag.Age)
	return out
}
