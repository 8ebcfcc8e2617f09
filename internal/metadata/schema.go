package metadata

import (
	"fmt"
	"slices"
	"strings"
)

// ConfigType is the type that DescribeConfigs reports, with Kafka's numbers.
type ConfigType int8

// Types of config values.
const (
	TypeBoolean ConfigType = 1
	TypeString  ConfigType = 2
	TypeInt     ConfigType = 3
	TypeLong    ConfigType = 5
	TypeDouble  ConfigType = 6
	TypeList    ConfigType = 7
)

// Effect says what setting a key does.
type Effect uint8

const (
	// Dynamic keys take effect at once.
	Dynamic Effect = iota
	// Ignored keys are checked, kept and shown, because tools set them, but change nothing here; Doc says why.
	Ignored
)

// ConfigKey describes one configuration key. Keys are shared and read-only.
type ConfigKey struct {
	Name    string
	Type    ConfigType
	Default string // what holds when nobody sets it
	Server  string // the broker key that sets it for all topics (Kafka's synonym); "" when there is none
	Doc     string
	Effect  Effect

	rule rule
}

// Check tells what is wrong with a value, in Kafka's words, or nil. Spaces around it do not count. The error wraps
// ErrInvalidConfig.
func (k *ConfigKey) Check(value string) error {
	if err := k.checkType(strings.TrimSpace(value)); err != nil {
		return fmt.Errorf("%w: Invalid value %s for configuration %s: %w", ErrInvalidConfig, clip(value), k.Name, err)
	}
	return nil
}

// Keys is a table of config keys, sorted by name.
type Keys []*ConfigKey

// Find looks a key up.
func (t Keys) Find(name string) (*ConfigKey, bool) {
	i, ok := slices.BinarySearchFunc(t, name, func(k *ConfigKey, name string) int { return strings.Compare(k.Name, name) })
	if !ok {
		return nil, false
	}
	return t[i], true
}

// Unknown is the error for a name that is not in the table, with the nearest one that is.
func (t Keys) Unknown(kind, name string) error {
	if near := t.nearest(name); near != "" {
		return fmt.Errorf("%w: Unknown %s config name: %s (did you mean %s?)", ErrInvalidConfig, kind, clip(name), near)
	}
	return fmt.Errorf("%w: Unknown %s config name: %s", ErrInvalidConfig, kind, clip(name))
}

// nearest is the key that a typing error away, or the one whose broker name was given; "" when nothing is near.
func (t Keys) nearest(name string) string {
	best, bestDistance := "", 3 // two edits are a typo, more is another word
	for _, k := range t {
		if k.Server == name {
			return k.Name
		}
		if d := editDistance(name, k.Name, bestDistance); d < bestDistance {
			best, bestDistance = k.Name, d
		}
	}
	return best
}

// editDistance is the optimal-string-alignment distance (insert, delete, replace, swap), or limit when it is not below.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return min(above[len(b)], limit)
}
