package broker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/partition"
)

func growth(name string, count int32, assignment ...[]int32) kmsg.CreatePartitionsRequestTopic {
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = name, count
	for _, replicas := range assignment {
		a := kmsg.NewCreatePartitionsRequestTopicAssignment()
		a.Replicas = replicas
		t.Assignment = append(t.Assignment, a)
	}
	return t
}

func TestCreatePartitions(t *testing.T) {
	for version := int16(0); version <= 3; version++ {
		a := newAdminBroker(t, nil)
		made := a.topic("a", 2)
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.Topics = []kmsg.CreatePartitionsRequestTopic{growth("a", 5)}
		req.ValidateOnly = true
		out := ask[*kmsg.CreatePartitionsResponse](a, version, req).Topics[0]
		if out.ErrorCode != 0 || out.ErrorMessage != nil || a.store.count("a") != 2 {
			t.Fatalf("v%d validate only: %+v", version, out)
		}
		req.ValidateOnly = false
		out = ask[*kmsg.CreatePartitionsResponse](a, version, req).Topics[0]
		grown := a.meta.Snapshot().Topics["a"]
		if out.ErrorCode != 0 || grown.Partitions != 5 || grown.ID != made.ID || a.store.count("a") != 5 {
			t.Errorf("v%d: %+v, %+v, %d directories", version, out, grown, a.store.count("a"))
		}
	}
}

func TestCreatePartitionsRefuses(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.topic("a", 2)
	a.topic("b", 1)
	for _, tc := range []struct {
		asked kmsg.CreatePartitionsRequestTopic
		code  int16
		text  string
	}{
		{growth("nope", 5), 3, "does not host"},
		{growth("a", 2), 37, "already has 2"},
		{growth("a", 1), 37, "would not be an increase"},
		{growth("a", -1), 37, "would not be an increase"},
		{growth("a", 10_003), 44, "Excessively"},
		{growth("a", 2_000_000_000), 37, "at most"},
		{growth("a", 4, []int32{1}), 39, "add 2 additional partition(s), but 1"},
		{growth("a", 3, []int32{2}), 39, "broker 2"},
		{growth("a", 3, []int32{}), 39, "empty replica list"},
	} {
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.Topics = append(req.Topics, tc.asked)
		out := ask[*kmsg.CreatePartitionsResponse](a, 3, req).Topics[0]
		if out.ErrorCode != tc.code || !strings.Contains(text(out.ErrorMessage), tc.text) {
			t.Errorf("%+v: %d %s, want %d …%s…", tc.asked, out.ErrorCode, text(out.ErrorMessage), tc.code, tc.text)
		}
	}
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.Topics = []kmsg.CreatePartitionsRequestTopic{growth("b", 2), growth("a", 3, []int32{1}), growth("b", 3)}
	var got []string
	for _, out := range ask[*kmsg.CreatePartitionsResponse](a, 3, req).Topics {
		got = append(got, fmt.Sprintf("%s %d", out.Topic, out.ErrorCode))
	}
	expect(t, "duplicates", got, "b 42", "a 0")
}

// A directory that cannot be made leaves the topic as it was; the next try uses those that were.
func TestCreatePartitionsHalfWay(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.topic("a", 1)
	a.store.failCreate = func(_ string, index int32) error {
		if index == 2 {
			return partition.ErrDiskFull
		}
		return nil
	}
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.Topics = []kmsg.CreatePartitionsRequestTopic{growth("a", 4)}
	if out := ask[*kmsg.CreatePartitionsResponse](a, 3, req).Topics[0]; out.ErrorCode != 56 {
		t.Errorf("%d %s", out.ErrorCode, text(out.ErrorMessage))
	}
	if n := a.meta.Snapshot().Topics["a"].Partitions; n != 1 {
		t.Errorf("%d partitions on record", n)
	}
	a.store.failCreate = nil
	if out := ask[*kmsg.CreatePartitionsResponse](a, 3, req).Topics[0]; out.ErrorCode != 0 || a.store.count("a") != 4 {
		t.Errorf("%d %s, %d directories", out.ErrorCode, text(out.ErrorMessage), a.store.count("a"))
	}
}
