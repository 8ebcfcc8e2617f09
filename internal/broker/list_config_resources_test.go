package broker

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestListConfigResources(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.topic("b", 1)
	a.topic("a", 1)
	if err := a.meta.AlterGroupConfigs("g", map[string]string{"lagoon.catchup.weight": "2"}, nil); err != nil {
		t.Fatal(err)
	}
	list := func(version int16, types ...int8) []string {
		req := kmsg.NewPtrListConfigResourcesRequest()
		req.ResourceTypes = types
		resp := ask[*kmsg.ListConfigResourcesResponse](a, version, req)
		out := []string{fmt.Sprint("err ", resp.ErrorCode)}
		for _, r := range resp.ConfigResources {
			out = append(out, fmt.Sprintf("%d %s", r.Type, r.Name))
		}
		return out
	}
	expect(t, "v0: client metrics only", list(0), "err 0")
	expect(t, "all", list(1), "err 0", "2 a", "2 b", "4 1", "8 1", "32 g")
	expect(t, "some", list(1, 32, 2, 32), "err 0", "2 a", "2 b", "32 g")
	expect(t, "client metrics", list(1, 16), "err 0")
	expect(t, "unknown type", list(1, 2, 5), "err 35")
}
