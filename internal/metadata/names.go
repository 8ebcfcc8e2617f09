package metadata

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"unicode/utf8"
)

// MaxTopicNameBytes is Kafka's limit: with "-<partition>" appended the name must fit a directory entry.
const MaxTopicNameBytes = 249

// ValidateTopicName accepts what Kafka's Topic.validate accepts: 1 to 249 of [a-zA-Z0-9._-], neither "." nor "..".
// The error wraps ErrInvalidTopic. Such a name cannot leave a directory.
func ValidateTopicName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: the name is empty", ErrInvalidTopic)
	case name == "." || name == "..":
		return fmt.Errorf("%w: the name cannot be %q", ErrInvalidTopic, name)
	case len(name) > MaxTopicNameBytes:
		return fmt.Errorf("%w: the name has %d bytes, at most %d", ErrInvalidTopic, len(name), MaxTopicNameBytes)
	}
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-') {
			return fmt.Errorf("%w: %q holds a character other than letters, digits, '.', '_' and '-'", ErrInvalidTopic, name)
		}
	}
	return nil
}

// CollisionWith tells whether two different topic names are one in metric names, where '.' becomes '_'. Kafka refuses to make
// the second of such a pair.
func CollisionWith(a, b string) bool {
	if a == b || len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if unify(a[i]) != unify(b[i]) {
			return false
		}
	}
	return true
}

func unify(c byte) byte {
	if c == '.' {
		return '_'
	}
	return c
}

// CheckCollision refuses the name of a new topic that collides with an existing one (CollisionWith). The error wraps ErrInvalidTopic.
func (s *Snapshot) CheckCollision(name string) error {
	if !strings.ContainsAny(name, "._") {
		return nil
	}
	for _, other := range s.names {
		if CollisionWith(name, other) {
			return fmt.Errorf("%w: topic %s collides with existing topic %s: '.' and '_' count as one", ErrInvalidTopic, name, other)
		}
	}
	return nil
}

func (o Override) validate() error {
	switch {
	case o.Kind != "group" && o.Kind != "client" && o.Kind != "topic":
		return fmt.Errorf("%w: kind %q, want group, client or topic", ErrInvalidOverride, clip(o.Kind))
	case o.Name == "" || len(o.Name) > maxNameBytes || !utf8.ValidString(o.Name):
		return fmt.Errorf("%w: name of %d bytes, want 1 to %d of UTF-8", ErrInvalidOverride, len(o.Name), maxNameBytes)
	case len(o.Reason) > maxReasonBytes || !utf8.ValidString(o.Reason):
		return fmt.Errorf("%w: reason of %d bytes, want at most %d of UTF-8", ErrInvalidOverride, len(o.Reason), maxReasonBytes)
	case o.BytesPerSecond < 0 || o.ExpiresMs < 0:
		return fmt.Errorf("%w: negative rate or expiry", ErrInvalidOverride)
	case !(o.Weight >= 0 && o.Weight <= maxWeight) || math.Signbit(o.Weight):
		return fmt.Errorf("%w: weight %v, want 0 to %v", ErrInvalidOverride, o.Weight, float64(maxWeight))
	}
	return nil
}

// altered is configs with set applied and del removed, as a new map.
func altered(configs, set map[string]string, del []string) (map[string]string, error) {
	if err := checkConfigMap(set); err != nil {
		return nil, err
	}
	out := cloneConfigs(configs)
	maps.Copy(out, set)
	for _, k := range del {
		delete(out, k)
	}
	return out, checkConfigMap(out)
}

func checkConfigMap(configs map[string]string) error {
	if len(configs) > maxConfigKeys {
		return fmt.Errorf("%w: %d keys, at most %d", ErrInvalidConfig, len(configs), maxConfigKeys)
	}
	for k, v := range configs {
		if k == "" || len(k) > maxNameBytes || !utf8.ValidString(k) {
			return fmt.Errorf("%w: key %q", ErrInvalidConfig, clip(k))
		}
		if len(v) > MaxConfigValueBytes || !utf8.ValidString(v) {
			return fmt.Errorf("%w: value of %s has %d bytes or is not UTF-8; at most %d", ErrInvalidConfig, k, len(v), MaxConfigValueBytes)
		}
	}
	return nil
}

// cloneConfigs never gives nil.
func cloneConfigs(configs map[string]string) map[string]string {
	out := make(map[string]string, len(configs))
	maps.Copy(out, configs)
	return out
}

// clip bounds what a hostile name can put into a message.
func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "?") + "…"
	}
	return s
}
