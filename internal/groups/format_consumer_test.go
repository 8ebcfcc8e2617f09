package groups

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/statetopic"
)

// kafkaRecords were written by Kafka 4.3.1 (MessageUtil.toVersionPrefixedByteBuffer of org.apache.kafka.coordinator.group.generated), of group g.
var kafkaRecords = []struct {
	key, value string
	want       consumer.Record
}{
	{"0003000167", "0000000000070100081122334455667788", consumer.Record{Kind: consumer.GroupEpoch, Epoch: 7, Hash: 0x1122334455667788}},
	{"0003000167", "00000000000700", consumer.Record{Kind: consumer.GroupEpoch, Epoch: 7}},
	{"000500016700016d", "0000026902720263032f68030261026204782e2a0000ea600672616e676500", consumer.Record{Kind: consumer.MemberRecord, ID: "m", Member: &consumer.Member{
		ID: "m", InstanceID: "i", RackID: "r", ClientID: "c", Host: "/h", Topics: []string{"a", "b"}, Regex: "x.*", Rebalance: time.Minute, Assignor: "range"}}},
	{"000500016700016d", "000000000263032f6801000000ea600000", consumer.Record{Kind: consumer.MemberRecord, ID: "m", Member: &consumer.Member{
		ID: "m", ClientID: "c", Host: "/h", Rebalance: time.Minute}}},
	{"000500016700016d", "000000000263032f68020261000000ea60000100120100002710020672616e6765040001020000", consumer.Record{Kind: consumer.MemberRecord, ID: "m", Member: &consumer.Member{
		ID: "m", ClientID: "c", Host: "/h", Topics: []string{"a"}, Rebalance: time.Minute,
		Classic: &consumer.ClassicMember{Session: 10 * time.Second, Protocols: []classic.Protocol{{Name: "range", Metadata: []byte{0, 1, 2}}}}}}},
	{"0006000167", "00000000000700", consumer.Record{Kind: consumer.TargetEpoch, Epoch: 7}},
	{"000700016700016d", "0000020102030405060708090a0b0c0d0e0f100300000000000000020000", consumer.Record{Kind: consumer.TargetMember, ID: "m",
		Assignment: consumer.Assignment{{ID: kafkaTopic, Partitions: []int32{0, 2}}}}},
	{"000800016700016d", "0000000000070000000601020102030405060708090a0b0c0d0e0f1002000000000100050200000004020102030405060708090a0b0c0d0e0f1003000000010000000201000903000000050000000600",
		consumer.Record{Kind: consumer.CurrentMember, ID: "m", Current: &consumer.Current{Epoch: 7, Previous: 6, State: consumer.UnrevokedPartitions,
			Assigned: consumer.Assignment{{ID: kafkaTopic, Partitions: []int32{0}, Epochs: []int32{4}}},
			Revoking: consumer.Assignment{{ID: kafkaTopic, Partitions: []int32{1, 2}, Epochs: []int32{5, 6}}}}}},
	{"00100001670003782e2a", "000003037861037862000000000000000900000000000003e800", consumer.Record{Kind: consumer.RegularExpression, ID: "x.*",
		Resolved: &consumer.Resolved{Topics: []string{"xa", "xb"}, At: time.UnixMilli(1000)}}},
}

var kafkaTopic = consumer.TopicID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// TestKafkaConsumerRecords: what Kafka wrote is read, and what is written is what Kafka writes.
func TestKafkaConsumerRecords(t *testing.T) {
	for _, r := range kafkaRecords {
		k, err := hex.DecodeString(r.key)
		if err != nil {
			t.Fatal(err)
		}
		v, err := hex.DecodeString(r.value)
		if err != nil {
			t.Fatal(err)
		}
		id, err := readKey(k)
		if err != nil || id.group != "g" || id.consumer == nil {
			t.Fatalf("%s: %+v, %v", r.key, id, err)
		}
		got, err := readConsumerValue(*id.consumer, v)
		if err != nil || !reflect.DeepEqual(got, r.want) {
			t.Errorf("%s: %+v, want %+v, %v", r.key, got, r.want, err)
		}
		if got.Resolved != nil {
			got.Resolved.Version = 9 // it is not taken over
		}
		if back := appendConsumerValue(nil, got); hex.EncodeToString(back) != r.value {
			t.Errorf("%s is written as\n%x, want\n%s", r.key, back, r.value)
		}
		s := shard{}
		s.addConsumer("g", got)
		for n := range v { // cut off
			if _, err := readConsumerValue(*id.consumer, v[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes are read", r.key, n, len(v))
			}
		}
	}
	for _, value := range []string{ // without epochs of assignments: Kafka 4.2, 4.3 that was told none, a list that is too short
		"0000000000070000000601020102030405060708090a0b0c0d0e0f10020000000000020102030405060708090a0b0c0d0e0f100300000001000000020000",
		"0000000000070000000601020102030405060708090a0b0c0d0e0f10020000000001000100020102030405060708090a0b0c0d0e0f100300000001000000020100010000",
		"0000000000070000000601020102030405060708090a0b0c0d0e0f10020000000000020102030405060708090a0b0c0d0e0f10030000000100000002010005020000000500",
	} {
		v, err := hex.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readConsumerValue(consumer.Record{Kind: consumer.CurrentMember, ID: "m"}, v)
		if want := (consumer.Assignment{{ID: kafkaTopic, Partitions: []int32{1, 2}, Epochs: []int32{7, 7}}}); err != nil || !reflect.DeepEqual(got.Current.Revoking, want) {
			t.Errorf("%s: %+v, %v", value, got.Current, err)
		}
	}
	if id, err := readKey([]byte{0, 4, 0, 1, 'g'}); err != nil || !id.unused {
		t.Errorf("partition metadata: %+v, %v", id, err)
	}
	if _, err := readConsumerValue(consumer.Record{}, []byte{0, 1, 0, 0, 0, 0, 0}); !errors.Is(err, statetopic.ErrForeign) {
		t.Errorf("a newer version: %v", err)
	}
}

func FuzzConsumerRecords(f *testing.F) {
	for _, r := range kafkaRecords {
		k, _ := hex.DecodeString(r.key)
		v, _ := hex.DecodeString(r.value)
		f.Add(k, v)
	}
	f.Fuzz(func(t *testing.T, k, v []byte) {
		id, err := readKey(k)
		if err != nil || id.consumer == nil {
			return
		}
		r, err := readConsumerValue(*id.consumer, v)
		if err != nil || r.Deleted {
			return
		}
		again, err := readConsumerValue(*id.consumer, appendConsumerValue(nil, r))
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%+v, then %+v, %v", r, again, err)
		}
	})
}

// FuzzGroupRecords: offsets and groups of the classic protocol; what can be read means the same when it is written again.
func FuzzGroupRecords(f *testing.F) {
	at := topicPartition{"orders", 3}
	for _, v := range []offsetValue{{offset: 42, leaderEpoch: 5, metadata: "m", committed: 1000, expires: -1}, {offset: 1, leaderEpoch: -1, committed: 7, expires: 9}} {
		f.Add(appendOffsetKey(nil, "g", at), appendOffsetValue(nil, v))
	}
	f.Add(appendGroupKey(nil, "g"), appendGroupValue(nil, classic.Metadata{ProtocolType: "consumer", Generation: 3, Protocol: "range", Leader: "a", Since: time.UnixMilli(5),
		Members: []classic.StoredMember{{ID: "a", InstanceID: "i", ClientID: "c", Host: "/h", Session: time.Second, Rebalance: time.Minute, Subscription: []byte{1}, Assignment: []byte{2}}}}))
	f.Fuzz(func(t *testing.T, k, v []byte) {
		if len(k)+len(v) >= 1<<15 { // longer strings than the versions that are written can hold
			return
		}
		id, err := readKey(k)
		if err != nil || id.consumer != nil || id.unused {
			return
		}
		if id.offset {
			if again, err := readKey(appendOffsetKey(nil, id.group, id.tp)); err != nil || again != id {
				t.Fatalf("key %+v, then %+v, %v", id, again, err)
			}
			o, err := readOffsetValue(v)
			if err != nil {
				return
			}
			written := appendOffsetValue(nil, o)
			if o, err = readOffsetValue(written); err != nil || !bytes.Equal(appendOffsetValue(nil, o), written) {
				t.Fatalf("%x, then %+v, %v", written, o, err)
			}
			return
		}
		if again, err := readKey(appendGroupKey(nil, id.group)); err != nil || again != id {
			t.Fatalf("key %+v, then %+v, %v", id, again, err)
		}
		m, err := readGroupValue(v)
		if err != nil {
			return
		}
		written := appendGroupValue(nil, m)
		if m, err = readGroupValue(written); err != nil || !bytes.Equal(appendGroupValue(nil, m), written) {
			t.Fatalf("%x, then %+v, %v", written, m, err)
		}
	})
}
