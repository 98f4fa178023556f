// Classifies pictures with a running Taxon server:
//
//	sh generate.sh && go mod tidy && go run . localhost:50051 picture.jpg [more.jpg ...]
//
// Several servers behind one name are used in turns, each while it is healthy, and what a leaving one has not taken is
// asked again: SERVICE_CONFIG says so.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/health" // heeds who says NOT_SERVING
	"google.golang.org/grpc/status"

	pb "taxon.example/classify/taxonv1"
)

const (
	deadline        = 10 * time.Second // every call has one
	maxMessageBytes = 64 << 20
	serviceConfig   = `{
		"loadBalancingConfig": [{"round_robin": {}}],
		"healthCheckConfig": {"serviceName": ""},
		"retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
		"methodConfig": [{
			"name": [{"service": "taxon.v1.ClassificationService"}],
			"retryPolicy": {
				"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
				"retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
			}
		}]
	}`
)

func classify(client pb.ClassificationServiceClient, file string) (string, error) {
	image, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	answer, err := client.Classify(ctx, &pb.ClassifyRequest{
		Input:      &pb.ClassifyRequest_Image{Image: image},
		MaxResults: 3,
	})
	if err != nil {
		return "", fmt.Errorf("%s: %s", status.Code(err), status.Convert(err).Message())
	}
	if answer.Unknown {
		return "unknown", nil
	}
	var scores []string
	for _, found := range answer.Classifications {
		scores = append(scores, fmt.Sprintf("%s %.4f", found.Label, found.Score))
	}
	return strings.Join(scores, ", "), nil
}

func run(words []string) int {
	if len(words) < 2 {
		fmt.Fprintln(os.Stderr, "usage: go run . HOST:PORT PICTURE [PICTURE ...]")
		return 2
	}
	connection, err := grpc.Dial(
		"dns:///"+words[0],
		grpc.WithInsecure(), // elsewhere than on this machine: grpc.WithTransportCredentials
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(maxMessageBytes)),
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer connection.Close()
	client, code := pb.NewClassificationServiceClient(connection), 0
	for _, file := range words[1:] {
		said, err := classify(client, file)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", file, err) // one bad picture does not stop the others
			code = 1
			continue
		}
		fmt.Printf("%s: %s\n", file, said)
	}
	return code
}

func main() { os.Exit(run(os.Args[1:])) }
