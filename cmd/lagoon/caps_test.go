package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What kafka-configs sets on groups and brokers holds at once, is shown, survives a restart and can be taken back.
func TestCapsFromKafkaConfigs(t *testing.T) {
	root := t.TempDir()
	cfg := testConfig(t, root, "throttle.mode=fixed", "throttle.catchup_total=300MiB/s")
	d, stop := startDaemon(t, cfg, daemonOptions{MakeTiers: true})
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	shown := func(want ...string) {
		t.Helper()
		out := d.cli(t, "throttle", "ls")
		for _, w := range want {
			if absent, no := strings.CutPrefix(w, "no "); no == strings.Contains(out, strings.TrimPrefix(w, "no ")) {
				t.Errorf("want %q (%s) in\n%s", w, absent, out)
			}
		}
	}
	alter := func(kind kmsg.ConfigResourceType, name string, pairs ...string) {
		t.Helper()
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		r := kmsg.NewIncrementalAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = kind, name
		for _, p := range pairs {
			c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			k, v, ok := strings.Cut(p, "=")
			if c.Name, c.Op = k, kmsg.IncrementalAlterConfigOpDelete; ok {
				c.Op, c.Value = kmsg.IncrementalAlterConfigOpSet, &v
			}
			r.Configs = append(r.Configs, c)
		}
		req.Resources = append(req.Resources, r)
		resp, err := req.RequestWith(ctx, d.testClient(t))
		if err == nil {
			err = kerr.ErrorForCode(resp.Resources[0].ErrorCode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const group, broker = kmsg.ConfigResourceTypeGroupConfig, kmsg.ConfigResourceTypeBroker
	shown("all cold reads 300MiB/s", "no warehouse")
	alter(group, "warehouse", "lagoon.catchup.max.bytes.per.second=20971520", "lagoon.catchup.weight=3")
	alter(broker, "", "remote.log.manager.fetch.max.bytes.per.second=104857600", "remote.log.manager.copy.max.bytes.per.second=9223372036854775807")
	shown("all cold reads 100MiB/s", "group       warehouse  20MiB/s  3")
	if out := d.cli(t, "migrations"); !strings.Contains(out, "limit -") {
		t.Errorf("migrations\n%s", out)
	}
	// An override goes first, field by field: the weight that it does not name stays.
	d.cli(t, "throttle", "set", "warehouse", "5MiB/s")
	shown("group      warehouse  5MiB/s")

	if err := stop(); err != nil {
		t.Fatal(err)
	}
	d, stop = startDaemon(t, cfg, daemonOptions{})
	shown("all cold reads 100MiB/s", "group       warehouse  20MiB/s  3", "group      warehouse  5MiB/s")
	alter(group, "warehouse", "lagoon.catchup.max.bytes.per.second", "lagoon.catchup.weight")
	alter(broker, "", "remote.log.manager.fetch.max.bytes.per.second")
	shown("all cold reads 300MiB/s", "no group       warehouse  20MiB/s")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
