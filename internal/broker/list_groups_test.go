package broker

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestListGroups(t *testing.T) {
	a := newAdminBroker(t, nil)
	for version := int16(0); version <= 5; version++ {
		req := kmsg.NewPtrListGroupsRequest()
		req.StatesFilter, req.TypesFilter = []string{"Stable"}, []string{"classic"}
		if resp := ask[*kmsg.ListGroupsResponse](a, version, req); resp.ErrorCode != 0 || len(resp.Groups) != 0 || resp.Version != version {
			t.Errorf("v%d: %+v", version, resp)
		}
	}
}
