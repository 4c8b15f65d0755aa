package invoketest

import (
	"crypto/md5" //nolint:gosec // SQS answers with the MD5 of what it took; nothing rests on its strength
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// AWS stands in for the two services that functions need beside S3: parameters of SSM and queues of SQS. It speaks as
// much of their JSON protocols as the functions use.
type AWS struct {
	URL string

	mu         sync.Mutex
	parameters map[string]string   // guarded by mu
	queues     map[string][]string // bodies by name; guarded by mu
	requests   map[string]int      // by operation; guarded by mu
}

// StartAWS starts the services.
func StartAWS(t testing.TB) *AWS {
	t.Helper()
	a := &AWS{parameters: map[string]string{}, queues: map[string][]string{}, requests: map[string]int{}}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.URL = server.URL
	return a
}

// Env is what tells AWS clients of the services.
func (a *AWS) Env() map[string]string {
	return map[string]string{"AWS_ENDPOINT_URL_SQS": a.URL, "AWS_ENDPOINT_URL_SSM": a.URL}
}

// Parameter sets a parameter.
func (a *AWS) Parameter(name, value string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parameters[name] = value
}

// Queue makes a queue and returns its URL.
func (a *AWS) Queue(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.queues[name] == nil {
		a.queues[name] = []string{}
	}
	return a.url(name)
}

func (a *AWS) url(name string) string { return a.URL + "/123456789012/" + name }

// Take returns the messages of a queue and empties it.
func (a *AWS) Take(name string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	bodies := a.queues[name]
	a.queues[name] = []string{}
	return bodies
}

// Requests returns how often an operation was called, such as "AmazonSQS.SendMessageBatch".
func (a *AWS) Requests(operation string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests[operation]
}

// ServeHTTP answers the services' requests.
func (a *AWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Names     []string
		QueueName string
		QueueURL  string `json:"QueueUrl"`
		Entries   []struct {
			ID          string `json:"Id"`
			MessageBody string
		}
	}
	operation := r.Header.Get("X-Amz-Target")
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests[operation]++
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	name := in.QueueName + in.QueueURL[strings.LastIndexByte(in.QueueURL, '/')+1:]
	_, there := a.queues[name]
	var out any
	switch {
	case operation == "AmazonSSM.GetParameters":
		out = a.get(in.Names)
	case !there:
		w.Header().Set("X-Amzn-Query-Error", "AWS.SimpleQueueService.NonExistentQueue;Sender")
		w.WriteHeader(http.StatusBadRequest)
		out = map[string]string{"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "The specified queue does not exist."}
	case operation == "AmazonSQS.GetQueueUrl":
		out = map[string]string{"QueueUrl": a.url(name)}
	case operation == "AmazonSQS.SendMessageBatch":
		var done []map[string]string
		for _, e := range in.Entries {
			sum := md5.Sum([]byte(e.MessageBody)) //nolint:gosec // see above
			done = append(done, map[string]string{"Id": e.ID, "MessageId": e.ID, "MD5OfMessageBody": hex.EncodeToString(sum[:])})
			a.queues[name] = append(a.queues[name], e.MessageBody)
		}
		out = map[string]any{"Successful": done, "Failed": []any{}}
	default:
		w.WriteHeader(http.StatusNotImplemented)
	}
	_ = json.NewEncoder(w).Encode(out) // a client that is gone needs no answer
}

// get returns parameters; a.mu is held.
func (a *AWS) get(names []string) any {
	var found []map[string]string
	var missing []string
	for _, name := range names {
		if value, ok := a.parameters[name]; ok {
			found = append(found, map[string]string{"Name": name, "Value": value, "Type": "SecureString"})
		} else {
			missing = append(missing, name)
		}
	}
	return map[string]any{"Parameters": found, "InvalidParameters": missing}
}
