package events

import (
	"fmt"
	"strings"
)

// Names of what the deployment makes and everybody must know.
const (
	BusName        = "holdfast"
	QueuePrefix    = "holdfast-"         // of the queue of a host
	DeadLetterName = "holdfast-jobs-dlq" // of all hosts' queues
)

// QueueName returns the name of a host's queue. It is the prefix and the host's name as it is, because the rights of
// agents are written with the tag that names the host; a name that SQS does not take (it has a dot) is an error.
func QueueName(host string) (string, error) {
	if !isName(host) || strings.Contains(host, ".") {
		return "", fmt.Errorf("queue of host %q: names of queues have letters, digits, '-' and '_' only: give the host another name in the policy", host)
	}
	if name := QueuePrefix + host; name != DeadLetterName {
		return name, nil
	}
	return "", fmt.Errorf("queue of host %q: the name is that of the dead-letter queue", host)
}
