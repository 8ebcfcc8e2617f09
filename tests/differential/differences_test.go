package differential

import (
	"regexp"
	"strings"
)

// difference is a way in which answers may differ, and why. A field that differs is explained by the first entry that covers it.
type difference struct {
	api      string // of the request; "": any
	sequence string // expression on the name of the sequence; "": any
	path     string // expression that matches all of the path; [] stands for any element
	lagoon   string // expression that matches all of the value; "": any
	kafka    string // likewise
	what     string // for the reader of docs/compatibility.md: what differs …
	why      string // … and why
	rare     bool   // it depends on timing, and most runs do not meet it
}

func (d difference) covers(f found) bool {
	whole := func(expr, s string) bool { return expr == "" || regexp.MustCompile(`^(?:`+expr+`)$`).MatchString(s) }
	return (d.api == "" || d.api == f.api) && (d.sequence == "" || regexp.MustCompile(d.sequence).MatchString(f.sequence)) &&
		whole(strings.ReplaceAll(d.path, "[]", `\[[^\]]*\]`), f.path) && whole(d.lagoon, f.lagoon) && whole(d.kafka, f.kafka)
}

const (
	unexpected  = "Kafka fails in a way that it did not foresee and answers UNKNOWN_SERVER_ERROR"
	oncePerName = "what is named twice in a request is answered each time it is named; Kafka answers once"
	echo        = "clients match answers to what they asked"
	ownSettings = "they are Lagoon's own"
	atOnce      = "expressions are matched and assignments computed before the answer; Kafka computes assignments at most once a second (KIP-1263)"
)

var differences = []difference{
	{path: `.*\.?ErrorMessage`, lagoon: "null", kafka: "()", what: "a success has no message where Kafka's is the empty string", why: "as in Kafka up to 3; kafkajs takes any text for an error"},
	{path: `.*\.?ErrorMessage`, lagoon: "a text", kafka: "null|()", what: "an error has a text where Kafka sends none", why: "errors name culprit and remedy"},

	{path: `.*`, lagoon: "null", kafka: absent, what: "some lists are null where Kafka's are empty, with errors above all", why: "clients take both for none"},
	{path: `.*`, lagoon: absent, kafka: "null", what: "some lists are empty where Kafka's are null", why: "clients take both for none"},

	{api: "ApiVersions", path: `ApiKeys[].M(in|ax)Version`, what: "CreateTopics 0-1 and DeleteGroups 3 are served as well", why: "kafka-go asks for the old ones; the new one is Kafka 4.4's"},
	{api: "ApiVersions", path: `ApiKeys[]`, lagoon: absent, what: "some keys are not served", why: "see the table above"},
	{api: "ApiVersions", path: `(Supported|Finalized)Features[]`, lagoon: absent, what: "features of KRaft, share groups and Streams groups are not named", why: "they say what Kafka's own brokers and controllers agree on"},
	{api: "ApiVersions", path: `FinalizedFeaturesEpoch`, what: "the epoch of the features is 0", why: "the list never changes while a broker runs"},

	{api: "Metadata", path: `Topics[].ErrorCode`, lagoon: "5", kafka: "3", what: "a topic that this very request makes is LEADER_NOT_AVAILABLE, Kafka says UNKNOWN_TOPIC_OR_PARTITION",
		why: "both make clients ask again; some old ones (kafkajs) do so only for the first"},
	{api: "Metadata", sequence: "^by id$", path: `(Topics[].(ErrorCode|Topic)|Brokers[]|ClusterID|ControllerID|ErrorCode)`, what: "a zero topic id is INVALID_REQUEST for that topic", why: unexpected},

	{api: "CreateTopics", path: `Topics[].Configs\[lagoon[^]]*\]`, kafka: absent, what: "settings lagoon.* are listed", why: ownSettings},
	{api: "CreateTopics", path: `Topics[].Configs\[segment.bytes\].Value`, lagoon: "536870912", kafka: "1073741824", what: "segment.bytes is 512 MiB by default, Kafka's is 1 GiB",
		why: "tiering moves whole segments: smaller ones follow the readers more closely"},
	{api: "CreateTopics", path: `Topics[].Configs\[min.insync.replicas\].Source`, lagoon: "5", kafka: "3", what: "min.insync.replicas is a default", why: "Kafka keeps a dynamic default of it for eligible leader replicas; there is one replica here"},
	{api: "CreateTopics", sequence: "^a key twice$", path: `Topics[].*`, what: "a key that is given twice is INVALID_CONFIG; Kafka takes the last value", why: "one of the two would be lost without a word"},
	{api: "CreateTopics", sequence: "^to be checked only$", path: `Topics[].TopicID`, lagoon: "0", what: "a topic that is only checked has no id; Kafka's answer has one that no topic will ever have", why: "there is no such topic"},

	{api: "DescribeConfigs", path: `Resources[].Configs\[segment.bytes\].Value`, lagoon: "536870912", kafka: "1073741824", what: "segment.bytes is 512 MiB by default, Kafka's is 1 GiB", why: "see CreateTopics"},
	{api: "DescribeConfigs", path: `Resources[].Configs\[min.insync.replicas\].Source`, lagoon: "5", kafka: "3", what: "min.insync.replicas is a default", why: "see CreateTopics"},
	{api: "DescribeConfigs", path: `Resources[].Configs\[lagoon[^]]*\]`, kafka: absent, what: "settings lagoon.* are listed", why: ownSettings},
	{api: "DescribeConfigs", path: `Resources[].Configs[].ConfigSynonyms[]`, kafka: absent, what: "the broker's default is among the synonyms of a topic's setting that has one in milliseconds",
		why: "Kafka's own default is in hours (log.retention.hours), which it leaves out"},
	{api: "DescribeConfigs", sequence: "^brokers$", path: `Resources[].Configs[].(Value|Source)`, what: "a broker's log.retention.ms has a value, and what was not configured is a default", why: "Kafka's is null and derived from log.retention.hours; its configuration file names node.id and num.partitions"},
	{api: "DescribeConfigs", sequence: "^a resource twice$", path: `Resources[].*`, lagoon: absent, what: "a resource that is named twice is answered once", why: "the answers would be equal"},

	{api: "IncrementalAlterConfigs", sequence: "^an operation that there is not$", path: `Resources[].ErrorCode`, lagoon: "42", kafka: "-1", what: "an operation that there is not is INVALID_REQUEST", why: unexpected},
	{api: "DescribeTopicPartitions", sequence: "names that are none", path: `Topics[].*`, what: "a name that is none is INVALID_TOPIC_EXCEPTION, the other topics are answered", why: unexpected + " for all topics of the request"},

	{api: "Produce", sequence: "^versions of Kafka 0.8", path: `.*`, what: "Produce 0 to 2 is answered with UNSUPPORTED_VERSION for each partition; Kafka closes the connection", why: "a client that hears why does not connect again and again"},
	{api: "Produce", sequence: "^(magic 3|text)$", path: `Topics[].Partitions[].ErrorCode`, lagoon: "87", kafka: "2", what: "a batch of a magic that there is not is INVALID_RECORD, Kafka says CORRUPT_MESSAGE", why: "clients send again what is corrupt, and it would be refused again"},
	{api: "Produce", sequence: "^a batch cut off$", path: `Topics[].Partitions[].ErrorCode`, lagoon: "2", kafka: "87", what: "a batch that is cut off is CORRUPT_MESSAGE, Kafka says INVALID_RECORD", why: "it was damaged on its way: sending it again can help"},
	{api: "Produce", sequence: "^bytes behind the batch$", path: `Topics[].Partitions[].(ErrorCode|BaseOffset|LogStartOffset)`, what: "bytes behind the batch are INVALID_RECORD; Kafka drops them", why: "what cannot be understood is not dropped without a word"},
	{api: "ListOffsets", sequence: "^bytes behind the batch$", path: `Topics[].Partitions[].Offset`, what: "so nothing was stored", why: "see Produce"},
	{api: "Produce", sequence: "^(a length of 2 GiB|a codec nobody knows)$", path: `Topics[].Partitions[].ErrorCode`, kafka: "-1", what: "a batch longer than its bytes is CORRUPT_MESSAGE, a codec that there is not UNSUPPORTED_COMPRESSION_TYPE", why: unexpected},
	{api: "Produce", path: `Topics[].Partitions[].LogStartOffset`, lagoon: "-1", kafka: "0", what: "the start of the log is -1 where a batch was refused", why: "nothing was looked up; no client reads it beside an error"},
	{api: "Produce", sequence: "^a topic without partitions$", path: `Topics[]`, kafka: absent, what: "a topic without partitions is in the answer", why: echo},
	{api: "Produce", sequence: "^a partition twice$", path: `Topics[].Partitions[]`, kafka: absent, what: "a partition that is named twice takes both batches and answers for both; Kafka drops one", why: "a record that was sent is stored or refused"},
	{api: "ListOffsets", sequence: "^a partition twice$", path: `Topics[].Partitions[].Offset`, lagoon: "2", kafka: "1", what: "so both are stored", why: "see Produce"},
	{api: "Produce", sequence: "^idempotent", path: `Topics[].Partitions[].LogAppendTime`, lagoon: "-1", what: "the append time of a duplicate is -1 where records keep the producer's time; Kafka gives its largest timestamp", why: "-1 is what the first answer said"},

	{api: "DeleteRecords", sequence: "^a partition twice$", path: `Topics[].Partitions[]`, kafka: absent, what: oncePerName, why: echo},
	{api: "Fetch", sequence: "^a partition twice$", path: `Topics[].Partitions[]`, kafka: absent, what: oncePerName, why: echo},
	{api: "Fetch", sequence: "^at most -1 bytes", path: `Topics[].Partitions[].*`, what: "a negative limit counts as 0", why: unexpected},
	{api: "Fetch", sequence: "^an isolation that there is not$", path: `(ErrorCode|Topics[](.Partitions[].*)?)`, what: "an isolation level that there is not counts as read_uncommitted", why: unexpected},

	{api: "ListOffsets", sequence: "^a partition twice$", path: `Topics[].Partitions[].*`, what: "a partition that is named twice is answered, and the second time INVALID_REQUEST; Kafka says that once", why: echo},
	{api: "ListOffsets", sequence: "^time -6$", path: `Topics[].Partitions[].(Offset|LeaderEpoch)`, what: "earliest pending upload (-6) is answered with the first offset that no colder tier holds; Kafka without remote storage says -1", why: "Lagoon's tiers are always on"},
	{api: "OffsetForLeaderEpoch", sequence: "^epoch -5", path: `Topics[].Partitions[].(EndOffset|LeaderEpoch)`, what: "a negative epoch is unknown: -1 and -1", why: "Kafka answers as if it had been"},

	{api: "AddOffsetsToTxn", path: `ErrorCode`, lagoon: "24", kafka: "0", what: "an empty group is INVALID_GROUP_ID", why: "Kafka finds that out only when offsets are committed"},

	{api: "ElectLeaders", sequence: "a kind that there is not$", path: `Topics[]`, lagoon: absent, what: "a kind of election that there is not is refused for the request as a whole; Kafka says so for each topic", why: "it is one mistake"},
	{api: "DescribeQuorum", sequence: "^the voter$", path: `Topics[].Partitions[].(CurrentVoters[].LogEndOffset|HighWatermark|LeaderEpoch)`, what: "offsets and epoch of the metadata log are those of Lagoon's catalogue", why: "it is another log"},
	{api: "DescribeQuorum", sequence: "^the voter$", path: `Nodes[].Listeners[]`, what: "the one listener is the clients' own", why: "there is no listener for controllers"},
	{api: "DescribeQuorum", sequence: "^partitions that there are not$", path: `(Topics[].Partitions[].(HighWatermark|LeaderEpoch|LeaderID)|Nodes[])`, what: "a partition that is not there has no leader: -1 throughout, beside the node; Kafka's answer has zeros and no node", why: "0 is an id and an offset like any other"},
	{api: "UpdateFeatures", path: `(ErrorCode|ErrorMessage|Results[])`, what: "version 1 answers for each feature, and an empty name is INVALID_REQUEST; Kafka answers INVALID_UPDATE_VERSION for the request as a whole", why: "the culprit is named"},

	{api: "DeleteGroups", sequence: "^twice$", path: `Groups[]`, kafka: absent, what: oncePerName, why: echo},
	{api: "ConsumerGroupHeartbeat", sequence: "^an empty instance, an empty rack$", path: `.*`, what: "an empty instance id or rack is as good as none; Kafka says INVALID_REQUEST", why: "the classic protocol's rule as well"},
	{api: "ConsumerGroupHeartbeat", sequence: "^a static member that joins again under its id$", path: `.*`, what: "a static member that joins again under its own id is let in; Kafka says UNRELEASED_INSTANCE_ID", why: "it is the same member, which has not got the answer"},
	{api: "ConsumerGroupHeartbeat", sequence: "^a classic group$", path: `ErrorCode`, lagoon: "69", kafka: "-1", what: "a heartbeat for a classic group whose metadata are not a consumer's is GROUP_ID_NOT_FOUND", why: unexpected},
	{api: "ConsumerGroupHeartbeat", path: `MemberEpoch`, lagoon: `\d`, kafka: `\d`, rare: true, what: "a member has the group's new epoch with the heartbeat that brings it about; Kafka's may stay at the one before", why: atOnce},
	{api: "TxnOffsetCommit", path: `Topics[].Partitions[].ErrorCode`, lagoon: "120", kafka: "48", rare: true, what: "offsets of a group that is not part of the transaction are TRANSACTION_ABORTABLE; Kafka sometimes says INVALID_TXN_STATE",
		why: "both make a client abort; which of them Kafka says depends on how far its own check has come"},
	{api: "ConsumerGroupHeartbeat", path: `Assignment.Topics[]`, kafka: absent, rare: true, what: "a member hears of a new assignment with its next heartbeat, the first one when it subscribes by an expression; Kafka's may come with a later one",
		why: atOnce},
	{api: "ConsumerGroupDescribe", path: `Groups[].(Epoch|AssignmentEpoch|Members[].MemberEpoch)`, lagoon: "2", kafka: "3", rare: true, what: "a group's first epoch is that of its first member and the topics it names; Kafka sometimes begins another at once",
		why: "there is nothing to change: Kafka's coordinator may hear of a topic that was just created after the member"},
	{api: "ConsumerGroupDescribe", path: `Groups[].Members[].SubscribedTopicRegex`, lagoon: "null", kafka: "()", what: "no expression is null", why: "the field may be null, and an empty expression is one"},
	{api: "JoinGroup", sequence: "^a group of the other protocol$", path: `Generation`, rare: true, what: "a member of the classic protocol that joins a KIP-848 group gets the group's new epoch as its generation; Kafka's may get the one before", why: atOnce},
	{api: "JoinGroup", sequence: "^a group of the other protocol$", path: `MemberID`, what: "member ids begin with the client id, also in KIP-848 groups", why: "people who look at members know them by it"},
	{api: "JoinGroup", sequence: "^an empty instance$", path: `.*`, what: "an empty instance id is none; Kafka makes a static member of that name", why: "two members that leave it empty would fence each other"},
}
