package metadata

// ConfigType is the type that DescribeConfigs reports, with Kafka's numbers.
type ConfigType int8

// Types of config values.
const (
	TypeBoolean  ConfigType = 1
	TypeString   ConfigType = 2
	TypeInt      ConfigType = 3
	TypeLong     ConfigType = 5
	TypeDouble   ConfigType = 6
	TypeList     ConfigType = 7
	TypePassword ConfigType = 9
)

// Effect says what setting a key does.
type Effect uint8

const (
	// Dynamic keys take effect at once.
	Dynamic Effect = iota
	// ReadOnly keys are shown and cannot be set.
	ReadOnly
	// Ignored keys are checked, kept and shown, because tools set them, but mean nothing here; Doc says why.
	Ignored
)

// ConfigKey describes one configuration key. The tables of keys are read-only.
type ConfigKey struct {
	Name    string
	Type    ConfigType
	Default string // built in; what holds when neither the topic nor the server sets it
	Server  string // the broker key that sets it for all topics (Kafka's synonym); "" when there is none
	Doc     string
	Effect  Effect

	check func(value string) error // nil: any value of the type
}
