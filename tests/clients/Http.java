import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;

/** Sends standard input with Java's own client: prints status and request id. */
class Http {
    public static void main(String[] arguments) throws Exception {
        var body = System.in.readAllBytes();
        var request = HttpRequest.newBuilder(URI.create(arguments[0]))
            .header("Authorization", "Bearer " + arguments[1])
            .header("Content-Type", "application/json");
        if (body.length > 0) request.POST(HttpRequest.BodyPublishers.ofByteArray(body));
        var response = HttpClient.newHttpClient()
            .send(request.build(), BodyHandlers.ofFile(Path.of("answer")));
        var id = response.headers().firstValue("x-request-id").orElse("-");
        System.out.println(response.statusCode() + " " + id);
    }
}
