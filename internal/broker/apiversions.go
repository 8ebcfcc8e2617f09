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
//   - transaction.version is finalized at 2: clients then use the transaction protocol of KIP-890.
const apiVersionsKey = 18

// The one feature that is finalized, and the epoch of the list, which never changes.
const (
	transactionFeature = "transaction.version"
	transactionVersion = 2
	featuresEpoch      = 0
)

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
	if r.version >= 4 { // older clients cannot read a feature that begins at version 0 (KIP-1022)
		supported := kmsg.NewApiVersionsResponseSupportedFeature()
		supported.Name, supported.MaxVersion = transactionFeature, transactionVersion
		resp.SupportedFeatures = append(resp.SupportedFeatures, supported)
	}
	finalized := kmsg.NewApiVersionsResponseFinalizedFeature()
	finalized.Name, finalized.MinVersionLevel, finalized.MaxVersionLevel = transactionFeature, transactionVersion, transactionVersion
	resp.FinalizedFeatures = append(resp.FinalizedFeatures, finalized)
	resp.FinalizedFeaturesEpoch = featuresEpoch
	return resp, nil
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
