package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeUserScramCredentials (key 50)
//
// Behaviour: this broker authenticates nobody, so no user has credentials: null or no users is an empty list, every user that is
// asked for is RESOURCE_NOT_FOUND, one named twice DUPLICATE_RESOURCE. kafka-configs asks for it along with every user's quotas.

func (b *Broker) handleDescribeUserScramCredentials(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.DescribeUserSCRAMCredentialsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeUserSCRAMCredentialsResponse)
	times := map[string]int{}
	for _, u := range req.Users {
		times[u.Name]++
	}
	for _, u := range req.Users {
		n := times[u.Name]
		if n == 0 {
			continue // answered already
		}
		times[u.Name] = 0
		err := refuse(kerr.ResourceNotFound, "Attempt to describe a user credential that does not exist: %.200s", u.Name)
		if n > 1 {
			err = refuse(kerr.DuplicateResource, "Cannot describe SCRAM credentials for the same user twice in a single request: %.200s", u.Name)
		}
		out := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		out.User, out.ErrorCode, out.ErrorMessage = u.Name, b.code(err, "describe SCRAM credentials"), clientText(err)
		resp.Results = append(resp.Results, out)
	}
	return resp, nil
}
