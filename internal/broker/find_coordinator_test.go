package broker

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestFindCoordinator(t *testing.T) {
	a := newAdminBroker(t, nil)
	for version := int16(0); version <= 6; version++ {
		for kind, want := range map[int8]int16{0: 0, 1: 0, 2: 42, 77: 42} {
			if version == 0 && kind != 0 {
				continue // no kind on the wire
			}
			req := kmsg.NewPtrFindCoordinatorRequest()
			req.CoordinatorKey, req.CoordinatorType, req.CoordinatorKeys = "g1", kind, []string{"g1", "g2"}
			resp := ask[*kmsg.FindCoordinatorResponse](a, version, req)
			got := resp.Coordinators
			if version < 4 {
				c := kmsg.NewFindCoordinatorResponseCoordinator()
				c.Key, c.NodeID, c.Host, c.Port, c.ErrorCode, c.ErrorMessage = "g1", resp.NodeID, resp.Host, resp.Port, resp.ErrorCode, resp.ErrorMessage
				got = append(got, c)
			} else if len(got) != 2 || got[1].Key != "g2" {
				t.Fatalf("v%d: %+v", version, resp)
			}
			for _, c := range got {
				node, host, port := int32(1), "10.0.0.9", int32(9092)
				if want != 0 {
					node, host, port = -1, "", -1
				}
				if c.ErrorCode != want || c.NodeID != node || c.Host != host || c.Port != port || (version > 0 && (c.ErrorMessage != nil) != (want != 0)) {
					t.Errorf("v%d, type %d: %+v", version, kind, c)
				}
			}
		}
	}
}

// TestFindManyCoordinators: tools that look at all groups ask for the coordinators of all of them in one request (kafka-consumer-groups --all-groups).
func TestFindManyCoordinators(t *testing.T) {
	c := groupRig(t).dial()
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.Version = 4
	for i := range 5000 {
		req.CoordinatorKeys = append(req.CoordinatorKeys, fmt.Sprintf("connect-sink-of-the-orders-of-region-%05d", i))
	}
	got := call[*kmsg.FindCoordinatorResponse](c, req).Coordinators
	if len(got) != len(req.CoordinatorKeys) || got[4999].Key != req.CoordinatorKeys[4999] || got[4999].ErrorCode != 0 {
		t.Errorf("%d coordinators", len(got))
	}
}
