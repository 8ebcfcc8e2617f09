package broker

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/metadata"
	"lagoon/internal/quotas"
)

// DescribeClientQuotas (key 48) and AlterClientQuotas (key 49)
//
// Behaviour:
//   - Entities are users, client ids, pairs of them, and addresses; a null name is the default. Without authentication every
//     connection's user is ANONYMOUS.
//   - A limit is in force and durable when the answer is sent. Each entity is changed in one step; an entity or key named twice is
//     INVALID_REQUEST. The texts are those of Kafka's ClientQuotaControlManager and ClientQuotasImage.
//   - An address has to be one: host names are not looked up. However it is spelled, it is one entity, shown as netip.Addr.String has it.
//   - Removing what is not there is no error, whatever its name: a key of another release can go.
//   - cold_fetch_byte_rate, of client ids only, caps what they read past the page cache (admission); it never mutes a connection.
//     The default is each reader's without a cap of its own, in place of throttle.per_reader.max.
//
// How the limits are kept is in limiter.go.

// quotaLock serialises changes of client quotas with their coming into force; no topic can have this name.
const quotaLock = "/quotas"

// errMutationQuota tells a strict client that it makes and deletes partitions too fast.
var errMutationQuota = refuse(kerr.ThrottlingQuotaExceeded, "The throttling quota has been exceeded.")

// Types of entities.
const (
	entityUser     = "user"
	entityClientID = "client-id"
	entityIP       = "ip"
)

func partOf(e *quotas.Entity, kind string) *quotas.Part {
	switch kind {
	case entityUser:
		return &e.User
	case entityClientID:
		return &e.ClientID
	case entityIP:
		return &e.IP
	}
	return nil
}

func (b *Broker) handleAlterClientQuotas(ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.AlterClientQuotasRequest)
	resp := req.ResponseKind().(*kmsg.AlterClientQuotasResponse)
	unlock, err := b.meta.LockTopic(ctx, quotaLock)
	if err != nil {
		return nil, err
	}
	defer unlock()
	seen := map[quotas.Entity]bool{}
	for _, asked := range req.Entries {
		err := b.alterQuotas(asked, seen, req.ValidateOnly)
		out := kmsg.NewAlterClientQuotasResponseEntry()
		for _, part := range asked.Entity {
			e := kmsg.NewAlterClientQuotasResponseEntryEntity()
			e.Type, e.Name = part.Type, part.Name
			out.Entity = append(out.Entity, e)
		}
		if err != nil {
			out.ErrorCode, out.ErrorMessage = b.code(err, "alter client quotas"), clientText(err)
			b.metrics.failed("AlterClientQuotas", out.ErrorCode)
		}
		resp.Entries = append(resp.Entries, out)
	}
	b.limits.set(b.meta.Snapshot().Quotas)
	return resp, nil
}

// alterQuotas makes the changes of one entity, or only checks them.
func (b *Broker) alterQuotas(asked kmsg.AlterClientQuotasRequestEntry, seen map[quotas.Entity]bool, validateOnly bool) error {
	var entity quotas.Entity
	for _, part := range asked.Entity {
		p := partOf(&entity, part.Type)
		switch {
		case p == nil:
			return refuse(kerr.InvalidRequest, "Unhandled client quota entity type: %.100s", part.Type)
		case p.Set:
			return refuse(kerr.InvalidRequest, "Invalid client quota entity, duplicate entity entry %s", part.Type)
		case part.Name == nil:
			*p = quotas.Default()
		default:
			*p = quotas.Named(*part.Name)
		}
	}
	if err := entity.Check(); err != nil {
		return err
	}
	entity = entity.Canonical()
	if n := len(entity.ClientID.Name); n > maxClientID {
		return refuse(kerr.InvalidRequest, "A client-id of %d bytes would never be met: only the first %d bytes of what clients call themselves count", n, maxClientID)
	}
	if seen[entity] {
		return refuse(kerr.InvalidRequest, "Ignoring duplicate entity %.200s", entity.String())
	}
	seen[entity] = true
	set, del := map[string]float64{}, []string(nil)
	there, named := b.meta.Snapshot().Quotas[entity], map[string]bool{}
	for _, op := range asked.Ops {
		if named[op.Key] {
			return refuse(kerr.InvalidRequest, "Duplicate quota key %.100s not updating quota for this entity %.200s", op.Key, entity.String())
		}
		named[op.Key] = true
		if op.Remove {
			if _, ok := there[op.Key]; ok {
				del = append(del, op.Key)
			}
			continue
		}
		if err := quotas.CheckLimit(entity, op.Key, op.Value, metadata.MinCatchupBytesPerSecond); err != nil {
			return err
		}
		set[op.Key] = op.Value
	}
	if validateOnly {
		return nil
	}
	if err := b.meta.AlterQuotas(entity, set, del); err != nil {
		return err
	}
	b.log.Info("client quota changed", "entity", entity.String(), "set", set, "removed", del)
	return nil
}

func (b *Broker) handleDescribeClientQuotas(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.DescribeClientQuotasRequest)
	resp := req.ResponseKind().(*kmsg.DescribeClientQuotasResponse)
	filter, err := quotaFilterOf(req)
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = b.code(err, "describe client quotas"), clientText(err)
		return resp, nil
	}
	resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{} // null means an error
	all := b.meta.Snapshot().Quotas
	for entity, limits := range all {
		if !filter.matches(entity) {
			continue
		}
		out := kmsg.NewDescribeClientQuotasResponseEntry()
		for _, kind := range []string{entityUser, entityClientID, entityIP} {
			if p := partOf(&entity, kind); p.Set {
				e := kmsg.NewDescribeClientQuotasResponseEntryEntity()
				if e.Type = kind; !p.Default {
					e.Name = kmsg.StringPtr(p.Name)
				}
				out.Entity = append(out.Entity, e)
			}
		}
		for name, limit := range limits {
			v := kmsg.NewDescribeClientQuotasResponseEntryValue()
			v.Key, v.Value = name, limit
			out.Values = append(out.Values, v)
		}
		slices.SortFunc(out.Values, func(a, b kmsg.DescribeClientQuotasResponseEntryValue) int { return strings.Compare(a.Key, b.Key) })
		resp.Entries = append(resp.Entries, out)
	}
	slices.SortFunc(resp.Entries, func(a, b kmsg.DescribeClientQuotasResponseEntry) int {
		return slices.CompareFunc(a.Entity, b.Entity, func(a, b kmsg.DescribeClientQuotasResponseEntryEntity) int {
			return cmp.Or(strings.Compare(b.Type, a.Type), strings.Compare(deref(a.Name), deref(b.Name)))
		})
	})
	return resp, nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// quotaFilter is what DescribeClientQuotas asks for.
type quotaFilter struct {
	exact  quotas.Entity   // parts that must be like this
	any    map[string]bool // types that must be there
	parts  int
	strict bool // and no others
}

func quotaFilterOf(req *kmsg.DescribeClientQuotasRequest) (quotaFilter, error) {
	f := quotaFilter{any: map[string]bool{}, parts: len(req.Components), strict: req.Strict}
	for _, c := range req.Components {
		p := partOf(&f.exact, c.EntityType)
		switch {
		case c.EntityType == "":
			return f, refuse(kerr.InvalidRequest, "Invalid empty entity type.")
		case p != nil && (p.Set || f.any[c.EntityType]):
			return f, refuse(kerr.InvalidRequest, "Entity type %s cannot appear more than once in the filter.", c.EntityType)
		case p == nil:
			return f, refuse(kerr.UnsupportedVersion, "Unsupported entity type %.100s", c.EntityType)
		}
		switch c.MatchType {
		case kmsg.QuotasMatchTypeExact:
			if c.Match == nil {
				return f, refuse(kerr.InvalidRequest, "Request specified MATCH_TYPE_EXACT, but set match string to null.")
			}
			*p = quotas.Named(*c.Match)
		case kmsg.QuotasMatchTypeDefault:
			if c.Match != nil {
				return f, refuse(kerr.InvalidRequest, "Request specified MATCH_TYPE_DEFAULT, but also specified a match string.")
			}
			*p = quotas.Default()
		case kmsg.QuotasMatchTypeAny:
			if c.Match != nil {
				return f, refuse(kerr.InvalidRequest, "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.")
			}
			f.any[c.EntityType] = true
		default:
			return f, refuse(kerr.InvalidRequest, "Unknown match type %d", int8(c.MatchType))
		}
	}
	if (f.exact.IP.Set || f.any[entityIP]) && f.parts > 1 {
		return f, refuse(kerr.InvalidRequest, "Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component.")
	}
	f.exact = f.exact.Canonical()
	return f, nil
}

func (f *quotaFilter) matches(e quotas.Entity) bool {
	has := 0
	for _, kind := range []string{entityUser, entityClientID, entityIP} {
		p, want := *partOf(&e, kind), *partOf(&f.exact, kind)
		if p.Set {
			has++
		}
		if want.Set && p != want || f.any[kind] && !p.Set {
			return false
		}
	}
	return !f.strict || has == f.parts
}
