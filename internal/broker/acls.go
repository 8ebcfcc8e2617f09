package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeAcls (key 29), CreateAcls (key 30), DeleteAcls (key 31)
//
// Behaviour: there is no authorizer, so SECURITY_DISABLED, once for the request or for each part of it, as Kafka without one answers.

var errNoAuthorizer = refuse(kerr.SecurityDisabled, "No Authorizer is configured.")

func (b *Broker) handleDescribeACLs(_ context.Context, r *request) (kmsg.Response, error) {
	resp := r.body.ResponseKind().(*kmsg.DescribeACLsResponse)
	resp.ErrorCode, resp.ErrorMessage = kerr.SecurityDisabled.Code, clientText(errNoAuthorizer)
	return resp, nil
}

func (b *Broker) handleCreateACLs(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.CreateACLsRequest)
	resp := req.ResponseKind().(*kmsg.CreateACLsResponse)
	for range req.Creations {
		out := kmsg.NewCreateACLsResponseResult()
		out.ErrorCode, out.ErrorMessage = kerr.SecurityDisabled.Code, clientText(errNoAuthorizer)
		resp.Results = append(resp.Results, out)
	}
	return resp, nil
}

func (b *Broker) handleDeleteACLs(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.DeleteACLsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteACLsResponse)
	for range req.Filters {
		out := kmsg.NewDeleteACLsResponseResult()
		out.ErrorCode, out.ErrorMessage = kerr.SecurityDisabled.Code, clientText(errNoAuthorizer)
		resp.Results = append(resp.Results, out)
	}
	return resp, nil
}
