package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// IncrementalAlterConfigs (key 44)
//
// Behaviour:
//   - SET, DELETE (back to the default), and for lists APPEND and SUBTRACT, which start from the default when the key is not set
//     (KIP-339). On other types the latter two are INVALID_CONFIG.
//   - Everything else as AlterConfigs: see there.

func (b *Broker) handleIncrementalAlterConfigs(ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.IncrementalAlterConfigsRequest)
	resp := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
	var changes []resourceChange
	for _, asked := range req.Resources {
		c := resourceChange{resource: configResource{asked.ResourceType, asked.ResourceName}}
		for _, e := range asked.Configs {
			c.entries = append(c.entries, configChange{e.Name, e.Op, e.Value})
		}
		changes = append(changes, c)
	}
	for i, err := range b.alterResources(ctx, changes, req.ValidateOnly) {
		out := kmsg.NewIncrementalAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
		if err != nil {
			out.ErrorCode, out.ErrorMessage = b.code(err, "alter configs"), clientText(err)
			b.metrics.failed("IncrementalAlterConfigs", out.ErrorCode)
		}
		resp.Resources = append(resp.Resources, out)
	}
	return resp, nil
}
