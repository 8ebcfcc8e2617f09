package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/internal/admin"
	"lagoon/internal/partition"
)

// TestExplainGolden runs testdata/explain: "text CASE" and "json CASE" print how a read is explained. A case is the lagging read of
// a sealed segment below with what its words change: known, capped, deferred, active, hot, fill, end, failed.
func TestExplainGolden(t *testing.T) {
	datadriven.Walk(t, "testdata/explain", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			x := laggingRead()
			for _, arg := range d.CmdArgs {
				x.change(t, arg.Key)
			}
			e := x.chain()
			e.Now = time.Unix(1000, 0).UTC()
			body, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			a := &app{stdout: &out, output: "table"}
			if d.Cmd == "json" {
				a.output = "json"
			}
			if err := a.show(body, "steps", func(wide bool) error { return a.printExplanation(body, wide) }); err != nil {
				t.Fatal(err)
			}
			return out.String()
		})
	})
}

// laggingRead is a read of a sealed segment on the colder tier by a new reader.
func laggingRead() explained {
	x := explained{
		query: admin.ExplainQuery{Topic: "orders", Partition: 3, Offset: 40112345, MaxBytes: 1 << 20, Client: "wh-loader"},
		tier:  tier{class: "hdd"}, mode: "off", chunk: 1 << 20, pool: cachectl.PoolStats{CapacityBytes: 64 << 20, InUseBytes: 4 << 20},
		rule: admission.Config{MinBytes: 256 << 20, MinAge: time.Minute}, flow: admission.Subject{Kind: admission.Client, Name: "wh-loader"},
		dir: partition.DirView{Name: "hdd", Path: "/srv/lagoon/hdd", Device: admission.DeviceView{MaxInFlight: 1, InFlight: 1, Queued: 2}},
		ladder: cachectl.Ladder{Rungs: []cachectl.Rung{{Method: cachectl.MethodDirect, Usable: true}, {Method: cachectl.MethodDontCache, Why: "not supported"},
			{Method: cachectl.MethodBuffered, Usable: true}}},
	}
	x.Offsets = partition.Offsets{LogStart: 40000, HighWatermark: 41200211, End: 41200215}
	x.Segment = partition.SegmentView{Base: 40000, File: "orders-3/00000000000000040000.log", Tier: "hdd", SizeBytes: 512 << 20, Sealed: true}
	x.Pos, x.Bytes, x.Behind, x.Device, x.Method = 7<<20, 1<<20, 9771212800, "hdd", cachectl.MethodDirect
	x.Resident = cachectl.Residency{Pages: 256, Resident: 12, RecentlyEvicted: 3, Method: "cachestat"}
	x.Reader.Class = admission.Class{State: admission.Lagging, Reason: admission.ReasonBeyondWindow, Text: "9.1 GiB behind > min_bytes 256 MiB, and 12m32s > min_age 1m"}
	x.Weight = admission.DefaultWeight
	x.Reader.LagAge, x.Reader.LagBytes = 752*time.Second, x.Behind
	x.decide(admission.Read{State: admission.Lagging, ResidentRatio: 12.0 / 256, Sealed: true, BudgetOK: true})
	return x
}

func (x *explained) decide(r admission.Read) {
	x.Decision = admission.Decide(r)
	x.Why = x.Decision.Explain(r)
}

func (x *explained) change(t *testing.T, word string) {
	switch word {
	case "known":
		x.Known, x.Reader.ID = true, 17
	case "capped":
		x.mode, x.dir.Device.BytesPerSecond, x.dir.Device.TokensBytes = "fixed", 120<<20, 3<<20
		x.dir.Device.Flows = []admission.FlowView{{Flow: x.flow, BytesPerSecond: 16 << 20}}
		x.Weight = 3 * admission.DefaultWeight
	case "deferred":
		x.Limit = admission.Limit{By: admission.LimitOverride, Name: "wh-loader", BytesPerSecond: 16 << 20, Wait: 80 * time.Millisecond}
		x.override = true
		x.decide(admission.Read{State: admission.Lagging, ResidentRatio: 12.0 / 256, Sealed: true, LimitedBy: x.Limit})
	case "active":
		x.Segment.Sealed, x.Method = false, cachectl.MethodBuffered
	case "hot":
		x.Resident = cachectl.Residency{Pages: 256, Resident: 256, Method: "cachestat"}
		x.decide(admission.Read{State: admission.Lagging, Resident: true, ResidentRatio: 1, Sealed: true})
	case "fill":
		x.Reader.Class = admission.Class{State: admission.Realtime, Reason: admission.ReasonWithinWindow, Text: "80 MiB behind, inside min_bytes 256 MiB"}
		x.decide(admission.Read{State: admission.Realtime, ResidentRatio: 12.0 / 256, Sealed: true, BudgetOK: true})
	case "end":
		x.Pos = -1
	case "failed":
		x.err, x.Pos = errors.New("offset out of range: 5 is outside [40000, 41200215] of orders-3"), -1
	default:
		t.Fatalf("unknown word %s", word)
	}
}
