package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/metadata"
	"lagoon/internal/partition"
)

func TestAlterReplicaLogDirs(t *testing.T) {
	a := newAdminBroker(t, nil)
	for _, name := range []string{"a", "b"} {
		a.topic(name, 3)
	}
	a.store.views = append(a.store.views, partition.DirView{Tier: "ssd", Path: "/ssd2"}, partition.DirView{Tier: "usb", Path: "/usb", Err: partition.ErrFenced})
	a.store.parts[logDirPartition{"b", 1}].offline = partition.ErrFenced
	delete(a.store.parts, logDirPartition{"b", 2}) // being made
	type at struct {
		dir, topic string
		partition  int32
	}
	alter := func(version int16, of ...at) (out []string) {
		req := kmsg.NewPtrAlterReplicaLogDirsRequest()
		for _, o := range of {
			d := kmsg.NewAlterReplicaLogDirsRequestDir()
			d.Dir = o.dir
			d.Topics = []kmsg.AlterReplicaLogDirsRequestDirTopic{{Topic: o.topic, Partitions: []int32{o.partition}}}
			req.Dirs = append(req.Dirs, d)
		}
		for _, topic := range ask[*kmsg.AlterReplicaLogDirsResponse](a, version, req).Topics {
			for _, p := range topic.Partitions {
				out = append(out, fmt.Sprintf("%s-%d err %d", topic.Topic, p.Partition, p.ErrorCode))
			}
		}
		return out
	}
	pins := func(topic string, want map[int32]string) {
		t.Helper()
		got, _ := a.meta.Snapshot().Topic(topic)
		if !maps.Equal(got.Pins, want) || !maps.Equal(a.store.configs[topic].Pins, want) {
			t.Errorf("%s: pins %v on record, %v in force, want %v", topic, got.Pins, a.store.configs[topic].Pins, want)
		}
	}
	for version := int16(1); version <= 2; version++ {
		expect(t, "empty", alter(version))
		expect(t, "pinned", alter(version, at{"/hdd", "b", 0}, at{"/hdd", "a", 2}, at{"/ssd", "a", 1}), "b-0 err 0", "a-1 err 0", "a-2 err 0")
		expect(t, "again", alter(version, at{"/hdd", "a", 2}), "a-2 err 0")
	}
	pins("a", map[int32]string{1: "ssd", 2: "hdd"})
	expect(t, "the last one counts", alter(2, at{"/hdd", "a", 1}, at{"/hdd", "a", 0}, at{"/ssd", "a", 0}), "a-0 err 0", "a-1 err 0")
	pins("a", map[int32]string{0: "ssd", 1: "hdd", 2: "hdd"})
	expect(t, "errors", alter(2, at{"/floppy", "a", 0}, at{"/usb", "a", 1}, at{"/ssd2", "a", 2}, at{"/hdd", "b", 0}, at{"/hdd", "b", 1}, at{"/hdd", "b", 2}, at{"/hdd", "b", 3}, at{"/hdd", "b", -1}, at{"/hdd", "c", 0}, at{"/tape", "d", 0}),
		"a-0 err 57", "a-1 err 56", "a-2 err 39", "b--1 err 3", "b-0 err 0", "b-1 err 56", "b-2 err 9", "b-3 err 3", "c-0 err 3", "d-0 err 57")
	pins("a", map[int32]string{0: "ssd", 1: "hdd", 2: "hdd"})

	for _, want := range []bool{true, false} {
		if had, err := a.Unpin(context.Background(), "a", 1); err != nil || had != want {
			t.Errorf("taking the pin off: %v, %v, want %v", had, err, want)
		}
	}
	if had, err := a.Unpin(context.Background(), "nothing", 1); err != nil || had {
		t.Errorf("a topic that there is not: %v, %v", had, err)
	}
	pins("a", map[int32]string{0: "ssd", 2: "hdd"})
	specs, err := TopicSpecs(a.meta.Snapshot(), nil, 1)
	if err != nil || specs[0].Config.Pins[2] != "hdd" {
		t.Errorf("a start: %v, %v", specs, err)
	}
	a.meta.Close() // nothing can be put on record any more
	expect(t, "closed", alter(2, at{"/hdd", "a", 1}, at{"/floppy", "a", 0}), fmt.Sprintf("a-0 err %d", 57), "a-1 err 8")
	if _, err := a.Unpin(context.Background(), "a", 0); !errors.Is(err, metadata.ErrClosed) {
		t.Errorf("taking a pin off: %v", err)
	}
}
