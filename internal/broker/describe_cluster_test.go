package broker

import (
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestDescribeCluster(t *testing.T) {
	a := newAdminBroker(t, func(o *Options) { o.Rack = "r1" })
	for version := int16(0); version <= 2; version++ {
		req := kmsg.NewPtrDescribeClusterRequest()
		resp := ask[*kmsg.DescribeClusterResponse](a, version, req)
		if resp.ErrorCode != 0 || resp.ErrorMessage != nil || resp.ClusterID != a.meta.Snapshot().ClusterID || resp.ControllerID != 1 ||
			resp.ClusterAuthorizedOperations != math.MinInt32 || len(resp.Brokers) != 1 || resp.EndpointType != 1 {
			t.Fatalf("v%d: %+v", version, resp)
		}
		if n := resp.Brokers[0]; n.NodeID != 1 || n.Host != "10.0.0.9" || n.Port != 9092 || text(n.Rack) != "r1" || n.IsFenced {
			t.Errorf("v%d: %+v", version, n)
		}
		req.IncludeClusterAuthorizedOperations = true
		if got := ask[*kmsg.DescribeClusterResponse](a, version, req).ClusterAuthorizedOperations; got != clusterOperations {
			t.Errorf("v%d: operations %d", version, got)
		}
	}
	for kind, want := range map[int8]int16{2: 114, 7: 115} {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.EndpointType = kind
		if resp := ask[*kmsg.DescribeClusterResponse](a, 1, req); resp.ErrorCode != want || resp.ErrorMessage == nil || len(resp.Brokers) != 0 {
			t.Errorf("endpoint type %d: %+v", kind, resp)
		}
	}
}
