package conf

import (
	"fmt"
	"slices"
	"strings"

	"lagoon/internal/nearest"
)

// kafkaOnly explains Kafka server.properties keys that have no key here.
var kafkaOnly = map[string]string{
	"zookeeper.connect":                 "Lagoon needs no ZooKeeper: delete this line",
	"process.roles":                     "one Lagoon process is broker and controller: delete this line",
	"controller.quorum.voters":          "one Lagoon process is broker and controller: delete this line",
	"controller.listener.names":         "one Lagoon process is broker and controller: delete this line",
	"num.network.threads":               "Lagoon sizes this itself: delete this line",
	"num.io.threads":                    "Lagoon sizes this itself: delete this line",
	"num.recovery.threads.per.data.dir": "Lagoon sizes this itself: delete this line",
	"default.replication.factor":        "this is a single-node broker: delete this line",
	"offsets.topic.replication.factor":  "this is a single-node broker: delete this line",
	"min.insync.replicas":               "this is a single-node broker: delete this line",
	"cleanup.policy":                    "set it in [topic_defaults], or per topic with kafka-configs --entity-type topics",
	"log.cleanup.policy":                "set cleanup.policy in [topic_defaults], or per topic with kafka-configs --entity-type topics",
	"compression.type":                  "set it in [topic_defaults], or per topic with kafka-configs --entity-type topics",
	"message.timestamp.type":            "set it in [topic_defaults], or per topic with kafka-configs --entity-type topics",
	"log.message.timestamp.type":        "set message.timestamp.type in [topic_defaults], or per topic with kafka-configs --entity-type topics",
	"delete.topic.enable":               "topics can always be deleted: delete this line",
	"remote.storage.enable":             "list the tiers as [[storage.tier]]",
}

// unknownKey writes the text for a key that does not exist: the nearest key, or the key that Kafka's name stands for.
func (s *schema) unknownKey(path []string) string {
	dotted := strings.Join(path, ".")
	for i := range path { // `log.segment.bytes` below [storage] is storage.log.segment.bytes
		name := strings.Join(path[i:], ".")
		if key, ok := s.kafka[name]; ok {
			return fmt.Sprintf("unknown key; Kafka's %s is %s here", name, key)
		}
		if text, ok := kafkaOnly[name]; ok {
			return fmt.Sprintf("unknown key; Kafka's %s does not exist here: %s", name, text)
		}
	}
	parent, leaf := strings.Join(path[:len(path)-1], "."), path[len(path)-1]
	if best := nearest.Word(leaf, s.children[parent]); best != "" {
		return fmt.Sprintf("unknown key; did you mean %s?", strings.TrimPrefix(parent+"."+best, "."))
	}
	for _, key := range slices.Concat(s.keys, s.tables) { // right name, wrong table
		if key[strings.LastIndexByte(key, '.')+1:] == leaf {
			return fmt.Sprintf("unknown key; did you mean %s?", key)
		}
	}
	if best := nearest.Word(dotted, s.keys); best != "" {
		return fmt.Sprintf("unknown key; did you mean %s?", best)
	}
	if best := nearest.Word(dotted, s.kafkaNames); best != "" {
		return fmt.Sprintf("unknown key; did you mean Kafka's %s, which is %s here?", best, s.kafka[best])
	}
	if known := s.children[parent]; len(known) > 0 && parent != "" {
		return fmt.Sprintf("unknown key; [%s] has %s", parent, strings.Join(known, ", "))
	}
	return "unknown key; see lagoon check-config --defaults for all keys"
}

// oneOf writes the complaint about a word that is none of allowed.
func oneOf(got string, allowed []string) string {
	text := fmt.Sprintf("%s is not one of %s", clip(got), strings.Join(allowed, ", "))
	if best := nearest.Word(got, allowed); best != "" && !slices.Contains(allowed, got) {
		text += fmt.Sprintf("; did you mean %q?", best)
	}
	return text
}
