package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// UpdateFeatures (key 57)
//
// Behaviour: no feature can be changed at run time: what a release can do it does, and ApiVersions says so. The level that holds (0 for
// a feature that is not finalized) is a success without a change, any other INVALID_UPDATE_VERSION with the feature's name.
//
// Version notes: results by feature up to v1, one error for the whole request from v2 on.

func (b *Broker) handleUpdateFeatures(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.UpdateFeaturesRequest)
	resp := req.ResponseKind().(*kmsg.UpdateFeaturesResponse)
	var refused error
	for _, u := range req.FeatureUpdates {
		var err error
		switch {
		case u.Feature == "":
			err = refuse(kerr.InvalidRequest, "A feature update names no feature.")
		case u.MaxVersionLevel != finalizedLevel(u.Feature):
			err = refuse(kerr.InvalidUpdateVersion, "Invalid update version %d for feature %.100s. Broker %d does not support changing this feature.", u.MaxVersionLevel, u.Feature, b.opt.NodeID)
		}
		if refused == nil {
			refused = err
		}
		out := kmsg.NewUpdateFeaturesResponseResult()
		out.Feature, out.ErrorCode, out.ErrorMessage = u.Feature, b.code(err, "update features"), clientText(err)
		resp.Results = append(resp.Results, out)
	}
	if refused != nil && r.version >= 2 {
		resp.ErrorCode, resp.ErrorMessage = b.code(refused, "update features"), clientText(refused)
	}
	return resp, nil
}

// finalizedLevel is the level of a feature that ApiVersions tells, 0 for none.
func finalizedLevel(feature string) int16 {
	for _, f := range features {
		if f.name == feature {
			return f.level
		}
	}
	return 0
}
