package broker

import (
	"context"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListConfigResources (key 74, KIP-1142; v0 is ListClientMetricsResources of KIP-714)
//
// Behaviour: v0 lists client metrics subscriptions, of which there are none. v1 lists topics, this broker, its loggers and
// the groups that have configs, by type; no types means all. A type that has no configs is UNSUPPORTED_VERSION, as in
// Kafka.

func (b *Broker) handleListConfigResources(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.ListConfigResourcesRequest)
	resp := req.ResponseKind().(*kmsg.ListConfigResourcesResponse)
	if r.version == 0 {
		return resp, nil
	}
	snap := b.meta.Snapshot()
	names := map[kmsg.ConfigResourceType][]string{
		kmsg.ConfigResourceTypeTopic:         snap.Names(),
		kmsg.ConfigResourceTypeBroker:        {b.node()},
		kmsg.ConfigResourceTypeBrokerLogger:  {b.node()},
		kmsg.ConfigResourceTypeClientMetrics: nil,
		kmsg.ConfigResourceTypeGroupConfig:   slices.Sorted(maps.Keys(snap.GroupConfigs)),
	}
	types := slices.Sorted(maps.Keys(names))
	if len(req.ResourceTypes) > 0 {
		types = nil
		for _, t := range req.ResourceTypes {
			types = append(types, kmsg.ConfigResourceType(t))
		}
		slices.Sort(types)
		types = slices.Compact(types)
	}
	for _, t := range types {
		if _, ok := names[t]; !ok {
			resp.ErrorCode, resp.ConfigResources = kerr.UnsupportedVersion.Code, nil
			return resp, nil
		}
		for _, name := range names[t] {
			out := kmsg.NewListConfigResourcesResponseConfigResource()
			out.Name, out.Type = name, int8(t)
			resp.ConfigResources = append(resp.ConfigResources, out)
		}
	}
	return resp, nil
}
