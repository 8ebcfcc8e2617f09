package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// adminAPIs are the rows of apiTable for topics, configs and the cluster.
func adminAPIs() []api {
	return []api{
		{key: 3, name: "Metadata", min: 0, max: 13, maxBody: adminBody, body: newBody[kmsg.MetadataRequest], handle: (*Broker).handleMetadata},
		{key: 19, name: "CreateTopics", min: 0, max: 7, maxBody: adminBody, body: newBody[kmsg.CreateTopicsRequest], handle: (*Broker).handleCreateTopics},
		{key: 20, name: "DeleteTopics", min: 1, max: 6, served: 1, maxBody: adminBody, body: newBody[kmsg.DeleteTopicsRequest], handle: (*Broker).handleDeleteTopics},
		{key: 21, name: "DeleteRecords", min: 0, max: 2, maxBody: adminBody, body: newBody[kmsg.DeleteRecordsRequest], handle: (*Broker).handleDeleteRecords},
		{key: 32, name: "DescribeConfigs", min: 1, max: 4, served: 1, maxBody: adminBody, body: newBody[kmsg.DescribeConfigsRequest], handle: (*Broker).handleDescribeConfigs},
		{key: 33, name: "AlterConfigs", min: 0, max: 2, maxBody: adminBody, body: newBody[kmsg.AlterConfigsRequest], handle: (*Broker).handleAlterConfigs},
		{key: 35, name: "DescribeLogDirs", min: 1, max: 5, served: 1, maxBody: adminBody, body: newBody[kmsg.DescribeLogDirsRequest], handle: (*Broker).handleDescribeLogDirs},
		{key: 37, name: "CreatePartitions", min: 0, max: 3, maxBody: adminBody, body: newBody[kmsg.CreatePartitionsRequest], handle: (*Broker).handleCreatePartitions},
		{key: 44, name: "IncrementalAlterConfigs", min: 0, max: 1, maxBody: adminBody, body: newBody[kmsg.IncrementalAlterConfigsRequest], handle: (*Broker).handleIncrementalAlterConfigs},
		{key: 60, name: "DescribeCluster", min: 0, max: 2, maxBody: smallBody, body: newBody[kmsg.DescribeClusterRequest], handle: (*Broker).handleDescribeCluster},
		{key: 74, name: "ListConfigResources", min: 0, max: 1, maxBody: smallBody, body: newBody[kmsg.ListConfigResourcesRequest], handle: (*Broker).handleListConfigResources},
		{key: 75, name: "DescribeTopicPartitions", min: 0, max: 0, maxBody: adminBody, body: newBody[kmsg.DescribeTopicPartitionsRequest], handle: (*Broker).handleDescribeTopicPartitions},
	}
}
