package broker

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestSetTopicDefaults: a new configuration file reaches the partitions of every topic that does not say otherwise, those made later and
// what clients are told; what a topic does not go with is refused, and then nothing has changed.
func TestSetTopicDefaults(t *testing.T) {
	a := newAdminBroker(t, func(o *Options) { o.TopicDefaults = map[string]string{"retention.ms": "100000"} })
	a.topic("own", 1, "retention.ms=5")
	a.topic("follows", 1)
	a.topic("late", 1, "message.timestamp.type=LogAppendTime", "lagoon.delivery.delay.ms=50000")
	retention := func() string {
		told := configLines(ask[*kmsg.DescribeConfigsResponse](a, 4, describeRequest(described(topicResource, "follows", "retention.ms"))).Resources[0])
		return fmt.Sprint(a.store.config("own").RetentionMs, " ", a.store.config("follows").RetentionMs, " ", strings.Join(told, ""))
	}
	before := retention()
	if !strings.HasPrefix(before, "5 100000 retention.ms=100000 source 4") {
		t.Fatal(before)
	}
	set := func(retention string, validateOnly bool) error {
		return a.SetTopicDefaults(context.Background(), map[string]string{"retention.ms": retention}, validateOnly)
	}
	if err := set("200000", true); err != nil || retention() != before {
		t.Errorf("validated only: %v, %s", err, retention())
	}
	for _, validateOnly := range []bool{true, false} {
		if err := set("40000", validateOnly); err == nil || !strings.Contains(err.Error(), "Topic late would not go with it") || retention() != before {
			t.Errorf("less than a topic's delay: %v, %s", err, retention())
		}
	}
	if err := set("200000", false); err != nil {
		t.Fatal(err)
	}
	if got := retention(); !strings.HasPrefix(got, "5 200000 retention.ms=200000 source 4") {
		t.Error(got)
	}
	a.topic("later", 1)
	if got := a.store.config("later").RetentionMs; got != 200000 {
		t.Errorf("a later topic keeps %d ms", got)
	}
	// What kafka-configs sets on brokers still beats the file.
	if got := incrementalAnswer(a, incremental(brokerResource, "", "log.retention.ms=300000")); got != "0 <null>" {
		t.Fatal(got)
	}
	if err := set("250000", false); err != nil || a.store.config("follows").RetentionMs != 300000 {
		t.Errorf("%v, %s", err, retention())
	}
}
