package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/metadata"
)

// AlterConfigs (key 33)
//
// Behaviour:
//   - Replaces everything that is set on a resource: a key that is not in the request goes back to its default. Clients that
//     mean "set one key" use IncrementalAlterConfigs.
//   - Topics, brokers (dynamic keys only) and groups. The changes of one resource are made together or not at all; what was
//     changed is durable and in force when the answer is sent.
//   - A resource or key named twice, or a null value, is INVALID_REQUEST.
//
// Deprecated by Kafka since 2.3 but still what older tools send.

func (b *Broker) handleAlterConfigs(ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.AlterConfigsRequest)
	resp := req.ResponseKind().(*kmsg.AlterConfigsResponse)
	var changes []resourceChange
	for _, asked := range req.Resources {
		c := resourceChange{resource: configResource{asked.ResourceType, asked.ResourceName}, replace: true}
		for _, e := range asked.Configs {
			c.entries = append(c.entries, configChange{e.Name, kmsg.IncrementalAlterConfigOpSet, e.Value})
		}
		changes = append(changes, c)
	}
	for i, err := range b.alterResources(ctx, changes, req.ValidateOnly) {
		out := kmsg.NewAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
		if err != nil {
			out.ErrorCode, out.ErrorMessage = b.code(err, "alter configs"), clientText(err)
			b.metrics.failed("AlterConfigs", out.ErrorCode)
		}
		resp.Resources = append(resp.Resources, out)
	}
	return resp, nil
}

// resourceChange is what one request wants of one resource.
type resourceChange struct {
	resource configResource
	replace  bool // entries are all that shall be set
	entries  []configChange
}

type configChange struct {
	name  string
	op    kmsg.IncrementalAlterConfigOp
	value *string
}

// alterResources makes the changes one after the other; errors are in the order of changes, nil for success.
func (b *Broker) alterResources(ctx context.Context, changes []resourceChange, validateOnly bool) []error {
	times := map[configResource]int{}
	for _, c := range changes {
		times[c.resource]++
	}
	errs := make([]error, len(changes))
	for i, c := range changes {
		if times[c.resource] > 1 {
			errs[i] = refuse(kerr.InvalidRequest, "Each resource must appear at most once.")
			continue
		}
		if errs[i] = c.check(); errs[i] == nil {
			errs[i] = b.alterResource(ctx, c, validateOnly)
		}
	}
	return errs
}

// check refuses what is wrong whatever the resource is.
func (c resourceChange) check() error {
	seen := map[string]bool{}
	for _, e := range c.entries {
		switch {
		case seen[e.name]:
			return refuse(kerr.InvalidRequest, "Error due to duplicate config keys: %.200s", e.name)
		case e.op < kmsg.IncrementalAlterConfigOpSet || e.op > kmsg.IncrementalAlterConfigOpSubtract:
			return refuse(kerr.InvalidRequest, "Unknown operation %d for config %.200s.", int8(e.op), e.name)
		case e.value == nil && e.op != kmsg.IncrementalAlterConfigOpDelete:
			return refuse(kerr.InvalidRequest, "Null value not supported for : %.200s", e.name)
		}
		seen[e.name] = true
	}
	return nil
}

func (b *Broker) alterResource(ctx context.Context, c resourceChange, validateOnly bool) error {
	name := c.resource.name
	switch c.resource.kind {
	case kmsg.ConfigResourceTypeTopic:
		return b.alterTopic(ctx, name, c, validateOnly)
	case kmsg.ConfigResourceTypeBroker:
		if err := b.checkBrokerName(name); err != nil {
			return err
		}
		return b.alterBroker(ctx, name, c, validateOnly)
	case kmsg.ConfigResourceTypeBrokerLogger:
		if err := b.checkLoggerName(name); err != nil {
			return err
		}
		return refuse(kerr.InvalidConfig, "The log level is read-only for Kafka's tools: lagoon log-level changes it at run time, log.level in the configuration file for good.")
	case kmsg.ConfigResourceTypeGroupConfig:
		return b.alterGroup(ctx, name, c, validateOnly)
	}
	return unsupportedResource(c.resource.kind)
}

func (b *Broker) alterTopic(ctx context.Context, name string, c resourceChange, validateOnly bool) error {
	if name == "" {
		return refuse(kerr.InvalidRequest, "Default topic resources are not allowed.")
	}
	if err := metadata.ValidateTopicName(name); err != nil {
		return err
	}
	if _, ok := b.meta.Snapshot().Topic(name); !ok {
		return unknownTopic(name) // before a lock is made for any name a client thinks of
	}
	unlock, err := b.meta.LockTopic(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	ctx = context.WithoutCancel(ctx)
	snap := b.meta.Snapshot()
	t, ok := snap.Topic(name)
	if !ok {
		return unknownTopic(name)
	}
	defaults := b.topicDefaults(snap)
	wanted, err := c.applyTo(t.OwnConfigs(), defaults, metadata.TopicConfigs)
	if err != nil {
		return err
	}
	if err := b.validateTopicConfigs(wanted, defaults); err != nil || validateOnly {
		return err
	}
	set := slices.Sorted(maps.Keys(wanted))
	metadata.NoteDelivered(t.Configs, wanted, time.Now().UnixMilli())
	if err := b.meta.AlterTopicConfigs(t.ID, wanted, missing(t.Configs, wanted)); err != nil {
		return err
	}
	b.log.Info("topic configuration changed", "topic", name, "set", set)
	return b.applyConfigs(ctx, name)
}

func unknownTopic(name string) error {
	return refuse(kerr.UnknownTopicOrPartition, "The topic '%s' does not exist.", name)
}

// brokerLock and groupLock serialise changes of dynamic broker and group configs; no topic can have such a name.
const (
	brokerLock = "/broker"
	groupLock  = "/group"
)

func (b *Broker) alterBroker(ctx context.Context, name string, c resourceChange, validateOnly bool) error {
	for _, e := range c.entries {
		if _, ok := metadata.BrokerConfigs.Find(e.name); !ok {
			return b.notDynamic(e.name)
		}
	}
	unlock, err := b.meta.LockTopic(ctx, brokerLock)
	if err != nil {
		return err
	}
	defer unlock()
	ctx = context.WithoutCancel(ctx)
	snap := b.meta.Snapshot()
	current := snap.BrokerConfigs[name]
	wanted, err := c.applyTo(current, nil, metadata.BrokerConfigs)
	if err != nil {
		return err
	}
	if err := checkAll(wanted, metadata.BrokerConfigs, "broker"); err != nil {
		return err
	}
	if err := b.checkDelays(snap, name, wanted); err != nil || validateOnly {
		return err
	}
	if err := b.meta.AlterBrokerConfigs(name, wanted, missing(current, wanted)); err != nil {
		return err
	}
	b.log.Info("broker configuration changed", "broker", name, "set", slices.Sorted(maps.Keys(wanted)))
	return b.applyConfigs(ctx, b.meta.Snapshot().Names()...)
}

// checkDelays refuses defaults with which records of a topic that delivers late would be gone before anybody has seen them.
func (b *Broker) checkDelays(snap *metadata.Snapshot, name string, wanted map[string]string) error {
	next := *snap
	next.BrokerConfigs = maps.Clone(snap.BrokerConfigs)
	next.BrokerConfigs[name] = wanted
	return b.fits(snap, b.topicDefaults(snap), b.topicDefaults(&next))
}

// fits refuses defaults that a topic which delivers late does not go with, as it did with those before.
func (b *Broker) fits(snap *metadata.Snapshot, before, defaults map[string]string) error {
	for _, topic := range snap.Names() {
		t := snap.Topics[topic]
		if t.Configs[metadata.DeliveryDelayMs] == "" || metadata.ValidateTopicConfigs(t.OwnConfigs(), before) != nil {
			continue // or the configuration file has done that already
		}
		if err := metadata.ValidateTopicConfigs(t.OwnConfigs(), defaults); err != nil {
			return refuse(kerr.InvalidConfig, "Topic %s would not go with it: %s", topic, *clientText(err))
		}
	}
	return nil
}

// notDynamic says why a broker key cannot be changed.
func (b *Broker) notDynamic(name string) error {
	if slices.ContainsFunc(b.serverConfigs(), func(c ServerConfig) bool { return c.Name == name }) {
		return refuse(kerr.InvalidRequest, "Cannot update %s dynamically: it is read-only at run time and set in the configuration file.", name)
	}
	return metadata.BrokerConfigs.Unknown("broker", name)
}

func (b *Broker) alterGroup(ctx context.Context, group string, c resourceChange, validateOnly bool) error {
	if group == "" {
		return refuse(kerr.InvalidRequest, "Group name must not be empty.")
	}
	unlock, err := b.meta.LockTopic(ctx, groupLock)
	if err != nil {
		return err
	}
	defer unlock()
	current := b.meta.Snapshot().GroupConfigs[group]
	wanted, err := c.applyTo(current, nil, metadata.GroupConfigs)
	if err != nil {
		return err
	}
	if err := checkAll(wanted, metadata.GroupConfigs, "group"); err != nil || validateOnly {
		return err
	}
	if err := b.meta.AlterGroupConfigs(group, wanted, missing(current, wanted)); err != nil {
		return err
	}
	b.log.Info("group configuration changed", "group", group, "set", slices.Sorted(maps.Keys(wanted)))
	return nil
}

// applyTo is what a resource that has current set will have set. A list that is appended to or subtracted from and is
// not set starts from its default.
func (c resourceChange) applyTo(current, defaults map[string]string, keys metadata.Keys) (map[string]string, error) {
	wanted := map[string]string{}
	if !c.replace {
		maps.Copy(wanted, current)
	}
	for _, e := range c.entries {
		switch e.op {
		case kmsg.IncrementalAlterConfigOpDelete:
			delete(wanted, e.name)
			continue
		case kmsg.IncrementalAlterConfigOpSet:
			wanted[e.name] = strings.TrimSpace(*e.value)
			continue
		}
		k, ok := keys.Find(e.name)
		switch {
		case !ok:
			return nil, keys.Unknown(kindOf(c.resource.kind), e.name)
		case k.Type != metadata.TypeList:
			return nil, refuse(kerr.InvalidConfig, "Can't %s to key %s because its type is not LIST.", e.op, e.name)
		}
		old, ok := wanted[e.name]
		if !ok {
			if old, ok = defaults[e.name]; !ok {
				old = k.Default
			}
		}
		wanted[e.name] = changeList(old, *e.value, e.op == kmsg.IncrementalAlterConfigOpAppend)
	}
	return wanted, nil
}

func kindOf(kind kmsg.ConfigResourceType) string {
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		return "topic"
	case kmsg.ConfigResourceTypeGroupConfig:
		return "group"
	}
	return "broker"
}

// changeList adds the elements of change that are not there, or removes those that are.
func changeList(old, change string, add bool) string {
	list := listElements(old)
	for _, e := range listElements(change) {
		i := slices.Index(list, e)
		switch {
		case add && i < 0:
			list = append(list, e)
		case !add && i >= 0:
			list = slices.Delete(list, i, i+1)
		}
	}
	return strings.Join(list, ",")
}

func listElements(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	list := strings.Split(text, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// missing lists the keys of current that wanted lacks.
func missing(current, wanted map[string]string) (out []string) {
	for k := range current {
		if _, ok := wanted[k]; !ok {
			out = append(out, k)
		}
	}
	return out
}

// checkAll checks every value against its key.
func checkAll(configs map[string]string, keys metadata.Keys, kind string) error {
	var errs []error
	for name, value := range configs {
		k, ok := keys.Find(name)
		if !ok {
			errs = append(errs, keys.Unknown(kind, name))
			continue
		}
		if err := k.Check(value); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 1 {
		slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return fmt.Errorf("%w (and %d more)", errs[0], len(errs)-1)
	}
	return errors.Join(errs...)
}
