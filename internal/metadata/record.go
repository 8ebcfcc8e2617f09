package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"unicode/utf8"

	"lagoon/internal/quotas"
)

// A record is one change. apply works on a snapshot that nobody else sees yet, replacing, never changing, the maps and
// topics it shares with its predecessor.
type record interface {
	kind() recordKind
	appendTo(b []byte) []byte
	apply(s *Snapshot) error
}

type recordKind uint8

// The numbers are on disk: never reuse one.
const (
	kindTopicPut        recordKind = 1
	kindTopicDelete     recordKind = 2
	kindTopicPurged     recordKind = 3
	kindTopicPartitions recordKind = 4
	kindTopicConfigs    recordKind = 5
	kindBrokerConfigs   recordKind = 6
	kindGroupConfigs    recordKind = 7
	kindOverridePut     recordKind = 8
	kindOverrideDelete  recordKind = 9
	kindProducerIDs     recordKind = 10
	kindTierPut         recordKind = 11
	kindQuotas          recordKind = 12
	kindTopicPins       recordKind = 13
)

// Limits that bound every record, checked when it is made and again when it is read.
const (
	// MaxPartitions bounds one topic: each partition costs descriptors and memory.
	MaxPartitions = 100_000
	// MaxConfigValueBytes bounds one config value (Kafka's own tools send far less).
	MaxConfigValueBytes = 32 << 10
	maxConfigKeys       = 512
	maxQuotaKeys        = 16
	maxNameBytes        = 1024 // group ids, tiers, clients; topic names are bounded by MaxTopicNameBytes
	maxReasonBytes      = 4096
	maxWeight           = 100 // times the default share; admission.MaxWeight
	maxProducerID       = math.MaxInt64 / 2
)

type (
	topicPut        struct{ topic *Topic }
	topicDelete     struct{ id ID }
	topicPurged     struct{ id ID }
	topicPartitions struct {
		id    ID
		total int32
	}
	topicConfigs struct {
		id      ID
		configs map[string]string
	}
	topicPins struct {
		id   ID
		pins map[int32]string // all of the topic's
	}
	brokerConfigs struct {
		node    string
		configs map[string]string
	}
	groupConfigs struct {
		group   string
		configs map[string]string
	}
	overridePut    struct{ o Override }
	overrideDelete struct{ key OverrideKey }
	producerIDs    struct{ next int64 }
	tierPut        struct{ name, uuid string }
	quotaLimits    struct {
		entity quotas.Entity
		limits map[string]float64 // none: the entity has none any more
	}
)

func (topicPut) kind() recordKind        { return kindTopicPut }
func (topicDelete) kind() recordKind     { return kindTopicDelete }
func (topicPurged) kind() recordKind     { return kindTopicPurged }
func (topicPartitions) kind() recordKind { return kindTopicPartitions }
func (topicConfigs) kind() recordKind    { return kindTopicConfigs }
func (topicPins) kind() recordKind       { return kindTopicPins }
func (brokerConfigs) kind() recordKind   { return kindBrokerConfigs }
func (groupConfigs) kind() recordKind    { return kindGroupConfigs }
func (overridePut) kind() recordKind     { return kindOverridePut }
func (overrideDelete) kind() recordKind  { return kindOverrideDelete }
func (producerIDs) kind() recordKind     { return kindProducerIDs }
func (tierPut) kind() recordKind         { return kindTierPut }
func (quotaLimits) kind() recordKind     { return kindQuotas }

func (r topicPut) appendTo(b []byte) []byte {
	b = appendString(b, r.topic.Name)
	b = append(b, r.topic.ID[:]...)
	b = binary.AppendUvarint(b, uint64(r.topic.Partitions))
	b = binary.AppendVarint(b, r.topic.CreatedMs)
	return appendConfigs(b, r.topic.Configs)
}
func (r topicDelete) appendTo(b []byte) []byte { return append(b, r.id[:]...) }
func (r topicPurged) appendTo(b []byte) []byte { return append(b, r.id[:]...) }
func (r topicPartitions) appendTo(b []byte) []byte {
	return binary.AppendUvarint(append(b, r.id[:]...), uint64(r.total))
}
func (r topicConfigs) appendTo(b []byte) []byte {
	return appendConfigs(append(b, r.id[:]...), r.configs)
}
func (r topicPins) appendTo(b []byte) []byte {
	b = binary.AppendUvarint(append(b, r.id[:]...), uint64(len(r.pins)))
	for _, p := range slices.Sorted(maps.Keys(r.pins)) {
		b = appendString(binary.AppendUvarint(b, uint64(p)), r.pins[p])
	}
	return b
}
func (r brokerConfigs) appendTo(b []byte) []byte {
	return appendConfigs(appendString(b, r.node), r.configs)
}
func (r groupConfigs) appendTo(b []byte) []byte {
	return appendConfigs(appendString(b, r.group), r.configs)
}
func (r overridePut) appendTo(b []byte) []byte {
	b = appendString(appendString(b, r.o.Kind), r.o.Name)
	b = binary.AppendUvarint(b, uint64(r.o.BytesPerSecond))
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(r.o.Weight))
	b = binary.AppendUvarint(b, uint64(r.o.ExpiresMs))
	return appendString(b, r.o.Reason)
}
func (r overrideDelete) appendTo(b []byte) []byte {
	return appendString(appendString(b, r.key.Kind), r.key.Name)
}
func (r producerIDs) appendTo(b []byte) []byte { return binary.AppendUvarint(b, uint64(r.next)) }
func (r tierPut) appendTo(b []byte) []byte {
	return appendString(appendString(b, r.name), r.uuid)
}
func (r quotaLimits) appendTo(b []byte) []byte {
	for _, p := range []quotas.Part{r.entity.User, r.entity.ClientID, r.entity.IP} {
		switch {
		case !p.Set:
			b = append(b, 0)
		case p.Default:
			b = append(b, 1)
		default:
			b = appendString(append(b, 2), p.Name)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(r.limits)))
	for _, k := range slices.Sorted(maps.Keys(r.limits)) {
		b = binary.BigEndian.AppendUint64(appendString(b, k), math.Float64bits(r.limits[k]))
	}
	return b
}

// appendRecord encodes r: its kind and its fields.
func appendRecord(b []byte, r record) []byte { return r.appendTo(append(b, byte(r.kind()))) }

// decodeRecord is the inverse of appendRecord and accepts nothing that appendRecord does not write.
// Errors: ErrNewer for an unknown kind, otherwise a description of what is wrong. Allocation is bounded by len(b).
func decodeRecord(b []byte) (record, error) {
	if len(b) == 0 {
		return nil, errors.New("empty record")
	}
	d := decoder{b: b[1:]}
	var r record
	switch kind := recordKind(b[0]); kind {
	case kindTopicPut:
		t := &Topic{Name: d.string(MaxTopicNameBytes), ID: d.id(), Partitions: d.partitions(), CreatedMs: d.varint(), Configs: d.configs()}
		if d.err == nil {
			d.fail(ValidateTopicName(t.Name))
		}
		r = topicPut{t}
	case kindTopicDelete:
		r = topicDelete{d.id()}
	case kindTopicPurged:
		r = topicPurged{d.id()}
	case kindTopicPartitions:
		r = topicPartitions{d.id(), d.partitions()}
	case kindTopicConfigs:
		r = topicConfigs{d.id(), d.configs()}
	case kindTopicPins:
		r = topicPins{d.id(), d.pins()}
	case kindBrokerConfigs:
		r = brokerConfigs{d.string(maxNameBytes), d.configs()}
	case kindGroupConfigs:
		r = groupConfigs{d.string(maxNameBytes), d.configs()}
	case kindOverridePut:
		o := Override{Kind: d.string(maxNameBytes), Name: d.string(maxNameBytes), BytesPerSecond: d.uvarint63(),
			Weight: d.float(), ExpiresMs: d.uvarint63(), Reason: d.string(maxReasonBytes)}
		if d.err == nil {
			d.fail(o.validate())
		}
		r = overridePut{o}
	case kindOverrideDelete:
		r = overrideDelete{OverrideKey{d.string(maxNameBytes), d.string(maxNameBytes)}}
	case kindProducerIDs:
		r = producerIDs{d.uvarint63()}
	case kindTierPut:
		r = tierPut{d.string(maxNameBytes), d.string(maxNameBytes)}
	case kindQuotas:
		q := quotaLimits{entity: quotas.Entity{User: d.part(), ClientID: d.part(), IP: d.part()}, limits: d.limits()}
		if d.err == nil {
			d.fail(q.entity.Check())
		}
		r = q
	default:
		return nil, fmt.Errorf("%w: record kind %d", ErrNewer, kind)
	}
	if d.err == nil && len(d.b) > 0 {
		d.err = fmt.Errorf("%d bytes after the record", len(d.b))
	}
	if d.err != nil {
		return nil, d.err
	}
	return r, nil
}

func (r topicPut) apply(s *Snapshot) error {
	t := r.topic
	if _, ok := s.Topics[t.Name]; ok {
		return fmt.Errorf("topic %s made twice", t.Name)
	}
	if _, ok := s.TopicsByID[t.ID]; ok || s.Deleting[t.ID] != nil || t.ID == (ID{}) {
		return fmt.Errorf("topic %s has the id %s, which is zero or taken", t.Name, t.ID)
	}
	s.putTopic(t)
	s.insertName(t.Name)
	return nil
}

func (r topicDelete) apply(s *Snapshot) error {
	t, ok := s.TopicsByID[r.id]
	if !ok {
		return fmt.Errorf("delete of unknown topic id %s", r.id)
	}
	s.Topics, s.TopicsByID, s.Deleting = own(s, s.Topics), own(s, s.TopicsByID), own(s, s.Deleting)
	delete(s.Topics, t.Name)
	delete(s.TopicsByID, t.ID)
	s.Deleting[t.ID] = t
	s.removeName(t.Name)
	return nil
}

func (r topicPurged) apply(s *Snapshot) error {
	if _, ok := s.Deleting[r.id]; !ok {
		return fmt.Errorf("purge of topic id %s, which is not being deleted", r.id)
	}
	s.Deleting = own(s, s.Deleting)
	delete(s.Deleting, r.id)
	return nil
}

func (r topicPartitions) apply(s *Snapshot) error {
	t, ok := s.TopicsByID[r.id]
	if !ok || r.total <= t.Partitions {
		return fmt.Errorf("partitions of topic id %s set to %d", r.id, r.total)
	}
	grown := *t
	grown.Partitions = r.total
	s.putTopic(&grown)
	return nil
}

func (r topicConfigs) apply(s *Snapshot) error {
	t, ok := s.TopicsByID[r.id]
	if !ok {
		return fmt.Errorf("configs of unknown topic id %s", r.id)
	}
	changed := *t
	changed.Configs = r.configs
	s.putTopic(&changed)
	return nil
}

func (r topicPins) apply(s *Snapshot) error {
	t, ok := s.TopicsByID[r.id]
	if !ok {
		return fmt.Errorf("pins of unknown topic id %s", r.id)
	}
	for p := range r.pins {
		if p >= t.Partitions {
			return fmt.Errorf("pin of partition %d of %s, which has %d", p, t.Name, t.Partitions)
		}
	}
	changed := *t
	changed.Pins = r.pins
	s.putTopic(&changed)
	return nil
}

func (r brokerConfigs) apply(s *Snapshot) error {
	s.BrokerConfigs = withConfigs(own(s, s.BrokerConfigs), r.node, r.configs)
	return nil
}

func (r groupConfigs) apply(s *Snapshot) error {
	if r.group == "" {
		return errors.New("configs of a group without a name")
	}
	s.GroupConfigs = withConfigs(own(s, s.GroupConfigs), r.group, r.configs)
	return nil
}

func (r overridePut) apply(s *Snapshot) error {
	s.Overrides = own(s, s.Overrides)
	s.Overrides[OverrideKey{r.o.Kind, r.o.Name}] = r.o
	return nil
}

func (r overrideDelete) apply(s *Snapshot) error {
	s.Overrides = own(s, s.Overrides)
	delete(s.Overrides, r.key)
	return nil
}

func (r producerIDs) apply(s *Snapshot) error {
	if r.next <= s.NextProducerID || r.next > maxProducerID {
		return fmt.Errorf("next producer id goes from %d to %d", s.NextProducerID, r.next)
	}
	s.NextProducerID = r.next
	return nil
}

func (r tierPut) apply(s *Snapshot) error {
	if r.name == "" || r.uuid == "" {
		return errors.New("tier without name or identity")
	}
	s.Tiers = own(s, s.Tiers)
	s.Tiers[r.name] = r.uuid
	return nil
}

func (r quotaLimits) apply(s *Snapshot) error {
	s.Quotas = own(s, s.Quotas)
	e := r.entity.Canonical() // older catalogues hold addresses as they were spelled: the last word on an address counts
	if len(r.limits) == 0 {
		delete(s.Quotas, e)
	} else {
		s.Quotas[e] = r.limits
	}
	return nil
}

// putTopic adds or replaces t in both maps.
func (s *Snapshot) putTopic(t *Topic) {
	s.Topics, s.TopicsByID = own(s, s.Topics), own(s, s.TopicsByID)
	s.Topics[t.Name] = t
	s.TopicsByID[t.ID] = t
}

// withConfigs puts configs into all, which is changed.
func withConfigs(all map[string]map[string]string, name string, configs map[string]string) map[string]map[string]string {
	if len(configs) == 0 {
		delete(all, name)
	} else {
		all[name] = configs
	}
	return all
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendConfigs writes the keys in order, so that equal maps have equal bytes.
func appendConfigs(b []byte, configs map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(configs)))
	for _, k := range slices.Sorted(maps.Keys(configs)) {
		b = appendString(appendString(b, k), configs[k])
	}
	return b
}

// decoder reads fields; after the first fault it yields zero values and keeps the fault.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *decoder) uvarint63() int64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > math.MaxInt64 || n != len(binary.AppendUvarint(nil, v)) {
		d.fail(errors.New("bad number"))
		return 0
	}
	d.b = d.b[n:]
	return int64(v)
}

func (d *decoder) varint() int64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Varint(d.b)
	if n <= 0 || n != len(binary.AppendVarint(nil, v)) {
		d.fail(errors.New("bad number"))
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) take(n int64) []byte {
	if d.err != nil {
		return nil
	}
	if n > int64(len(d.b)) {
		d.fail(fmt.Errorf("%d bytes wanted, %d left", n, len(d.b)))
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) string(limit int64) string {
	n := d.uvarint63()
	if n > limit {
		d.fail(fmt.Errorf("text of %d bytes, limit %d", n, limit))
	}
	raw := d.take(n)
	if d.err == nil && !utf8.Valid(raw) {
		d.fail(errors.New("text is not UTF-8"))
	}
	return string(raw)
}

func (d *decoder) id() (id ID) {
	copy(id[:], d.take(int64(len(id))))
	return id
}

func (d *decoder) float() float64 {
	raw := d.take(8)
	if d.err != nil {
		return 0
	}
	return math.Float64frombits(binary.BigEndian.Uint64(raw))
}

func (d *decoder) part() quotas.Part {
	kind := d.take(1)
	switch {
	case d.err != nil || kind[0] == 0:
		return quotas.Part{}
	case kind[0] == 1:
		return quotas.Default()
	case kind[0] == 2:
		return quotas.Named(d.string(maxNameBytes))
	}
	d.fail(fmt.Errorf("part of an entity of kind %d", kind[0]))
	return quotas.Part{}
}

// limits reads what quotaLimits writes. Keys of a newer release are kept; they are not obeyed.
func (d *decoder) limits() map[string]float64 {
	n := d.uvarint63()
	if n > maxQuotaKeys || n > int64(len(d.b)) {
		d.fail(fmt.Errorf("%d limits", n))
	}
	limits, last := map[string]float64{}, ""
	for range n {
		k := d.string(maxNameBytes)
		v := d.float()
		if d.err != nil {
			break
		}
		if k <= last || !(v > 0) || math.IsInf(v, 0) {
			d.fail(errors.New("limits out of order, or not positive"))
		}
		limits[k], last = v, k
	}
	return limits
}

// pins is nil for none.
func (d *decoder) pins() map[int32]string {
	n := d.uvarint63()
	if n > MaxPartitions || n > int64(len(d.b)) {
		d.fail(fmt.Errorf("%d pins", n))
	}
	var pins map[int32]string
	last := int64(-1)
	for range n {
		p, dir := d.uvarint63(), d.string(maxNameBytes)
		if d.err != nil {
			break
		}
		if p <= last || p >= MaxPartitions || dir == "" {
			d.fail(errors.New("pins out of order, or of no directory"))
			break
		}
		if pins == nil {
			pins = map[int32]string{}
		}
		pins[int32(p)], last = dir, p
	}
	return pins
}

func (d *decoder) partitions() int32 {
	n := d.uvarint63()
	if d.err == nil && (n < 1 || n > MaxPartitions) {
		d.fail(fmt.Errorf("%d partitions", n))
	}
	return int32(min(n, MaxPartitions))
}

func (d *decoder) configs() map[string]string {
	n := d.uvarint63()
	if n > maxConfigKeys || n > int64(len(d.b)) {
		d.fail(fmt.Errorf("%d config keys", n))
	}
	configs, last := map[string]string{}, ""
	for i := range n {
		if d.err != nil {
			break
		}
		k := d.string(maxNameBytes)
		if i > 0 && k <= last || k == "" {
			d.fail(errors.New("config keys out of order"))
		}
		configs[k], last = d.string(MaxConfigValueBytes), k
	}
	return configs
}
