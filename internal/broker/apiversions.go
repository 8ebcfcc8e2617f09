package broker

import (
	"context"
	"regexp"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ApiVersions (key 18)
//
// Behaviour:
//   - Answered from the one table of APIs.
//   - A version above ours is not parsed: the answer is a v0 body with UNSUPPORTED_VERSION and the range of ApiVersions
//     itself (KIP-511), and the connection stays.
//   - The response always has header v0, whatever its version.
//   - Features that may be at level 0 are told from version 4 on: clients of before could not read them (KAFKA-17011).
//   - Features are finalized at the level that is served: clients then use the transaction protocol of KIP-890.
const apiVersionsKey = 18

// softwareName is what KIP-511 allows as client software name and version.
var softwareName = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

func (b *Broker) handleAPIVersions(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.ApiVersionsRequest)
	resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	if r.version >= 3 && (!softwareName.MatchString(req.ClientSoftwareName) || !softwareName.MatchString(req.ClientSoftwareVersion)) {
		resp.ErrorCode = kerr.InvalidRequest.Code
		return resp, nil
	}
	for _, a := range b.apis {
		resp.ApiKeys = append(resp.ApiKeys, apiRange(a))
	}
	resp.FinalizedFeaturesEpoch = 0 // of the list, which never changes
	for _, f := range features {
		if r.version >= 4 {
			s := kmsg.NewApiVersionsResponseSupportedFeature()
			s.Name, s.MinVersion, s.MaxVersion = f.name, 0, f.level
			resp.SupportedFeatures = append(resp.SupportedFeatures, s)
		}
		out := kmsg.NewApiVersionsResponseFinalizedFeature()
		out.Name, out.MinVersionLevel, out.MaxVersionLevel = f.name, f.level, f.level
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, out)
	}
	return resp, nil
}

// features are those that clients look for, at the level that is served.
var features = []struct {
	name  string
	level int16
}{
	{"group.version", 1},       // KIP-848
	{"transaction.version", 2}, // KIP-890
}

// versionsTooNew answers a version of ApiVersions that is not served.
func (b *Broker) versionsTooNew(in *incoming) *encodedReply {
	resp := kmsg.NewApiVersionsResponse()
	resp.Version = 0
	resp.ErrorCode = kerr.UnsupportedVersion.Code
	resp.ApiKeys = append(resp.ApiKeys, apiRange(*in.api))
	return encodeReply(in, &resp, false)
}

func apiRange(a api) kmsg.ApiVersionsResponseApiKey {
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = a.key, a.min, a.max
	return k
}
