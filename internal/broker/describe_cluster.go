package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeCluster (key 60)
//
// Behaviour: this node is the only broker and the controller. Asking for controllers at a broker's listener is
// MISMATCHED_ENDPOINT_TYPE, an endpoint type nobody knows UNSUPPORTED_ENDPOINT_TYPE (KIP-919). Authorized operations are
// computed on request only, INT32_MIN otherwise. No broker is ever fenced. An error says endpoint type 1, as Kafka's does.

// Endpoint types of KIP-919.
const (
	endpointBrokers     = 1
	endpointControllers = 2
)

func (b *Broker) handleDescribeCluster(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.DescribeClusterRequest)
	resp := req.ResponseKind().(*kmsg.DescribeClusterResponse)
	if r.version >= 1 && req.EndpointType != endpointBrokers {
		err := refuse(kerr.UnsupportedEndpointType, "Unsupported endpoint type %d", req.EndpointType)
		if req.EndpointType == endpointControllers {
			err = refuse(kerr.MismatchedEndpointType, "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER")
		}
		resp.ErrorCode, resp.ErrorMessage = b.code(err, "describe cluster"), clientText(err)
		return resp, nil
	}
	host, port := b.advertised(r)
	node := kmsg.NewDescribeClusterResponseBroker()
	node.NodeID, node.Host, node.Port, node.Rack = b.opt.NodeID, host, port, b.rack()
	resp.Brokers = append(resp.Brokers, node)
	resp.ClusterID = b.meta.Snapshot().ClusterID
	resp.ControllerID = b.opt.NodeID
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = clusterOperations
	}
	return resp, nil
}
