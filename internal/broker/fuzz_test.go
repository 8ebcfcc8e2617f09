package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/broker/wire"
	"lagoon/internal/partition"
)

// fuzzStore has partitions for Produce and Fetch and takes what the admin APIs do.
type fuzzStore struct {
	*adminStore
	logs fakeLogs
}

func (s fuzzStore) disconnected(uint64) {}

func (s fuzzStore) log(topic string, p int32) (partitionLog, bool) { return s.logs.log(topic, p) }

// FuzzRequests sends one frame through header, table, decoder, handler and encoder of every API that is served. Whatever
// it holds, nothing panics, and all memory comes back (the rig's clean-up looks).
func FuzzRequests(f *testing.F) {
	c := &client{t: f}
	topic := "orders"
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Topics = append(create.Topics, kmsg.CreateTopicsRequestTopic{Topic: "new", NumPartitions: 2, ReplicationFactor: 1,
		Configs: []kmsg.CreateTopicsRequestTopicConfig{{Name: "retention.ms", Value: &topic}}})
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.TopicNames, remove.Topics = []string{topic}, []kmsg.DeleteTopicsRequestTopic{{Topic: &topic}}
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
	describe := kmsg.NewPtrDescribeConfigsRequest()
	describe.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: topic}}
	alter := kmsg.NewPtrIncrementalAlterConfigsRequest()
	alter.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: topic,
		Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: "retention.ms", Value: &topic}}}}
	session := fetchRequest(12, topic, map[int32]int64{0: 0, 1: 0})
	session.SessionEpoch = 0
	seeds := []kmsg.Request{create, remove, metadata, describe, alter, session, fetchRequest(4, topic, map[int32]int64{0: 0}),
		produceRequest(9, -1, topic, records(0, batch(1, 100))), listOffsets(4, topic, timeLatest, timeMax)}
	for _, a := range apiTable() {
		seeds = append(seeds, kmsg.RequestForKey(a.key))
	}
	for _, a := range apiTable() {
		for _, req := range seeds {
			for version := a.min; req.Key() == a.key && version <= a.max; version++ {
				req.SetVersion(version)
				f.Add(c.frame(req)[4:])
			}
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < wire.MinFrameBytes || len(frame) > 1<<18 {
			return
		}
		r := newRig(t, func(o *Options) { o.AutoCreateTopics = true })
		r.b.logs = fuzzStore{&adminStore{parts: map[logDirPartition]*adminPartition{}, configs: map[string]partition.Config{}}, r.logs}
		r.logs["orders-0"].fill(t, 1, 100)
		conn := newConn(r.b, &endpoint{}, nullConn{})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		conn.queue = conn.store[:0]
		conn.loop = func() { conn.sendLoop(ctx) }
		conn.frames.Init(bytes.NewReader(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)), 1<<20, &conn.lease)
		close(conn.stopping) // long polls answer at once
		size, err := conn.frames.Size()
		if err != nil {
			t.Fatal(err)
		}
		whole, err := conn.frames.Body(size)
		if err != nil {
			t.Fatal(err)
		}
		err = conn.handle(ctx, &whole)
		conn.waitSent()
		if errors.Is(err, errPanic) || conn.closed {
			t.Fatalf("a request panicked or its response could not be sent: %v", err)
		}
	})
}
