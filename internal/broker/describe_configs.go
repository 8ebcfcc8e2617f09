package broker

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/metadata"
)

// DescribeConfigs (key 32)
//
// Behaviour:
//   - topic: every key of the schema, with where its value comes from and every place that sets it (synonyms).
//   - broker, by id: the server's settings (read-only, from the configuration file) and the dynamic keys. Broker "": what is set
//     for all brokers dynamically, nothing else, as in Kafka.
//   - broker logger: one logger, "root", whose level is set at start.
//   - group: the keys a group may have; a group need not exist.
//   - Each resource is answered once, however often it is named, so a small request cannot ask for a huge answer.
//   - No names of keys, null or empty, mean all keys, as in Kafka. Names that do not exist are passed over. Success has a null error message. Sensitive values are null.
//
// Version notes: synonyms from v1; type and documentation from v3.

// maxConfigResources bounds the answer to one request. Kafka's tools ask for a few, kafka-ui for every topic of a page.
const maxConfigResources = 10_000

// configResource names what a config request is about.
type configResource struct {
	kind kmsg.ConfigResourceType
	name string
}

func (b *Broker) handleDescribeConfigs(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.DescribeConfigsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
	snap := b.meta.Snapshot()
	seen := map[configResource]bool{}
	for _, asked := range req.Resources {
		resource := configResource{asked.ResourceType, asked.ResourceName}
		if seen[resource] {
			continue
		}
		seen[resource] = true
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = asked.ResourceType, asked.ResourceName
		entries, err := b.describeResource(snap, resource)
		if len(seen) > maxConfigResources {
			entries, err = nil, refuse(kerr.InvalidRequest, "At most %d resources in one request.", maxConfigResources)
		}
		if err != nil {
			out.ErrorCode, out.ErrorMessage = b.code(err, "describe configs"), clientText(err)
			b.metrics.failed("DescribeConfigs", out.ErrorCode)
		}
		for _, e := range entries {
			if len(asked.ConfigNames) == 0 || slices.Contains(asked.ConfigNames, e.name) {
				out.Configs = append(out.Configs, e.response(req.IncludeSynonyms, req.IncludeDocumentation))
			}
		}
		resp.Resources = append(resp.Resources, out)
	}
	return resp, nil
}

// configEntry is one key of one resource. The first value counts.
type configEntry struct {
	name      string
	kind      metadata.ConfigType
	doc       string
	values    []metadata.Value
	readOnly  bool
	sensitive bool
}

func (e configEntry) response(synonyms, documentation bool) kmsg.DescribeConfigsResponseResourceConfig {
	c := kmsg.NewDescribeConfigsResponseResourceConfig()
	c.Name, c.ReadOnly, c.IsSensitive = e.name, e.readOnly, e.sensitive
	c.Value = e.value(e.values[0])
	c.Source = kmsg.ConfigSource(e.values[0].Source)
	c.IsDefault = e.values[0].Source == metadata.SourceDefault
	c.ConfigType = kmsg.ConfigType(e.kind)
	if documentation {
		c.Documentation = kmsg.StringPtr(e.doc)
	}
	if synonyms {
		for _, v := range e.values {
			s := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			s.Name, s.Value, s.Source = v.Name, e.value(v), kmsg.ConfigSource(v.Source)
			c.ConfigSynonyms = append(c.ConfigSynonyms, s)
		}
	}
	return c
}

func (e configEntry) value(v metadata.Value) *string {
	if e.sensitive {
		return nil
	}
	return kmsg.StringPtr(v.Value)
}

// describeResource lists the entries of one resource, by name.
func (b *Broker) describeResource(snap *metadata.Snapshot, r configResource) ([]configEntry, error) {
	switch r.kind {
	case kmsg.ConfigResourceTypeTopic:
		return b.describeTopicConfigs(snap, r.name)
	case kmsg.ConfigResourceTypeBroker:
		if err := b.checkBrokerName(r.name); err != nil {
			return nil, err
		}
		return b.describeBrokerConfigs(snap, r.name), nil
	case kmsg.ConfigResourceTypeBrokerLogger:
		if err := b.checkLoggerName(r.name); err != nil {
			return nil, err
		}
		return []configEntry{b.rootLogger()}, nil
	case kmsg.ConfigResourceTypeGroupConfig:
		if r.name == "" {
			return nil, refuse(kerr.InvalidRequest, "Group name must not be empty.")
		}
		return b.describeGroupConfigs(snap, r.name), nil
	}
	return nil, unsupportedResource(r.kind)
}

func unsupportedResource(kind kmsg.ConfigResourceType) error {
	return refuse(kerr.InvalidRequest, "Unsupported resource type %s (%d): this broker has configs of topics, brokers, broker loggers and groups.", kind, int8(kind))
}

func (b *Broker) describeTopicConfigs(snap *metadata.Snapshot, name string) ([]configEntry, error) {
	if err := metadata.ValidateTopicName(name); err != nil {
		return nil, err
	}
	t, err := findTopic(snap, false, name, [16]byte{})
	if err != nil {
		return nil, err
	}
	out := make([]configEntry, len(metadata.TopicConfigs))
	for i, k := range metadata.TopicConfigs {
		out[i] = configEntry{name: k.Name, kind: k.Type, doc: k.Doc, values: snap.TopicValues(k, t.Configs, *b.defaults.Load(), b.node())}
	}
	return out, nil
}

// checkBrokerName accepts this node and "", which stands for all brokers.
func (b *Broker) checkBrokerName(name string) error {
	if name == "" || name == b.node() {
		return nil
	}
	if _, err := strconv.ParseInt(name, 10, 32); err != nil {
		return refuse(kerr.InvalidRequest, "Broker id must be an integer, but it is: %.64s", name)
	}
	return refuse(kerr.InvalidRequest, "Unexpected broker id, expected %s or empty string, but received %s", b.node(), name)
}

func (b *Broker) checkLoggerName(name string) error {
	if name == b.node() {
		return nil
	}
	return refuse(kerr.InvalidRequest, "Unexpected broker id, expected %s but received %.64s", b.node(), name)
}

func (b *Broker) serverConfigs() []ServerConfig {
	if b.opt.ServerConfigs == nil {
		return nil
	}
	return b.opt.ServerConfigs()
}

// describeBrokerConfigs lists what is set dynamically for all brokers (name ""), or everything about this one.
func (b *Broker) describeBrokerConfigs(snap *metadata.Snapshot, name string) []configEntry {
	var out []configEntry
	static := map[string]ServerConfig{}
	for _, c := range b.serverConfigs() {
		static[c.Name] = c
	}
	for _, k := range metadata.BrokerConfigs {
		e := configEntry{name: k.Name, kind: k.Type, doc: k.Doc}
		if name == "" {
			v, ok := snap.BrokerConfigs[""][k.Name]
			if !ok {
				continue
			}
			e.values = []metadata.Value{{Name: k.Name, Value: v, Source: metadata.SourceClusterBroker}}
		} else {
			e.values = snap.BrokerValues(k, *b.defaults.Load(), name)
			if c, ok := static[k.Name]; ok && len(e.values) > 0 && !c.Default && !hasSource(e.values, metadata.SourceStatic) {
				e.values = slices.Insert(e.values, len(e.values)-1, metadata.Value{Name: k.Name, Value: c.Value, Source: metadata.SourceStatic})
			}
		}
		delete(static, k.Name)
		out = append(out, e)
	}
	if name == "" {
		return out
	}
	for _, c := range static {
		source := metadata.SourceStatic
		if c.Default {
			source = metadata.SourceDefault
		}
		out = append(out, configEntry{name: c.Name, kind: metadata.ConfigType(c.Type), doc: c.Doc, readOnly: true, sensitive: c.Sensitive,
			values: []metadata.Value{{Name: c.Name, Value: c.Value, Source: source}}})
	}
	slices.SortFunc(out, func(a, b configEntry) int { return strings.Compare(a.name, b.name) })
	return out
}

func hasSource(values []metadata.Value, source metadata.Source) bool {
	return slices.ContainsFunc(values, func(v metadata.Value) bool { return v.Source == source })
}

// sourceLogger is DYNAMIC_BROKER_LOGGER_CONFIG (KIP-412).
const sourceLogger metadata.Source = 6

func (b *Broker) rootLogger() configEntry {
	level := "ERROR"
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if b.log.Enabled(context.Background(), l) {
			level = l.String()
			break
		}
	}
	return configEntry{name: "root", kind: metadata.TypeString, readOnly: true,
		doc:    "Lowest level that the broker logs. It is set in the configuration file, and at run time by lagoon log-level.",
		values: []metadata.Value{{Name: "root", Value: level, Source: sourceLogger}}}
}

func (b *Broker) describeGroupConfigs(snap *metadata.Snapshot, group string) []configEntry {
	static := map[string]ServerConfig{}
	for _, c := range b.serverConfigs() {
		static[c.Name] = c
	}
	out := make([]configEntry, len(metadata.GroupConfigs))
	for i, k := range metadata.GroupConfigs {
		e := configEntry{name: k.Name, kind: k.Type, doc: k.Doc}
		if v, ok := snap.GroupConfigs[group][k.Name]; ok {
			e.values = append(e.values, metadata.Value{Name: k.Name, Value: v, Source: metadata.SourceGroup})
		}
		if c, ok := static[k.Server]; ok && !c.Default {
			e.values = append(e.values, metadata.Value{Name: k.Server, Value: c.Value, Source: metadata.SourceStatic})
		}
		e.values = append(e.values, metadata.Value{Name: k.Name, Value: k.Default, Source: metadata.SourceDefault})
		out[i] = e
	}
	return out
}
