// The official Node SDK against the data plane at OPENAI_BASE_URL: one line of JSON for each check, as programs/checks.py does.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = (given = {}) => new OpenAI({ maxRetries: 0, timeout: 20_000, ...given });
const messages = [{ role: 'user', content: 'How much did support spend in May?' }];
const tool = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'The weather somewhere',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
};
const schema = {
  type: 'object',
  properties: { label: { type: 'string' }, urgency: { type: 'integer' } },
  required: ['label', 'urgency'],
  additionalProperties: false,
};

const checks = {
  async chat() {
    const { data, response, request_id } = await client()
      .chat.completions.create({ model: 'chat', messages })
      .withResponse();
    assert.match(data.choices[0].message.content, /^Simulated/);
    assert.ok(data.usage.completion_tokens > 0);
    assert.equal(response.headers.get('x-llmops-model'), 'plain');
    assert.ok(request_id);
  },
  async stream() {
    const stream = await client().chat.completions.create({
      model: 'chat',
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = '';
    let usage = null;
    let chunks = 0;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? '';
      usage = chunk.usage ?? usage;
      chunks += 1;
    }
    assert.match(text, /^Simulated/);
    assert.ok(usage.completion_tokens > 0);
    assert.ok(chunks > 2);
  },
  async stream_helper() {
    const runner = client().chat.completions.stream({ model: 'chat', messages });
    let text = '';
    runner.on('content', (piece) => (text += piece));
    assert.equal(await runner.finalContent(), text);
    assert.match(text, /^Simulated/);
  },
  async stream_left_early() {
    const stream = await client().chat.completions.create({ model: 'dripping', messages, stream: true });
    for await (const chunk of stream) {
      assert.ok(chunk.id);
      break;
    }
    assert.ok(stream.controller.signal.aborted);
  },
  async tool_call() {
    const asked = { model: 'tools', tools: [tool] };
    const answer = await client().chat.completions.create({ ...asked, messages });
    const [call] = answer.choices[0].message.tool_calls;
    assert.equal(call.function.name, 'get_weather');
    assert.equal(typeof JSON.parse(call.function.arguments).city, 'string');
    const final = await client().chat.completions.create({
      ...asked,
      messages: [
        ...messages,
        answer.choices[0].message,
        { role: 'tool', tool_call_id: call.id, content: '4 degrees' },
      ],
    });
    assert.ok(final.choices[0].message.content);
  },
  async structured_output() {
    const answer = await client().chat.completions.parse({
      model: 'chat',
      messages,
      response_format: { type: 'json_schema', json_schema: { name: 'ticket', strict: true, schema } },
    });
    const { label, urgency } = JSON.parse(answer.choices[0].message.content);
    assert.equal(typeof label, 'string');
    assert.ok(Number.isInteger(urgency));
  },
  async embeddings() {
    // The SDK asks for base64 by itself and decodes it.
    const packed = await client().embeddings.create({ model: 'embed', input: ['one', 'two'] });
    const plain = await client().embeddings.create({
      model: 'embed',
      input: ['one', 'two'],
      encoding_format: 'float',
    });
    assert.equal(packed.data.length, 2);
    packed.data[1].embedding.forEach((value, at) =>
      assert.ok(Math.abs(value - plain.data[1].embedding[at]) < 1e-6),
    );
  },
  async responses() {
    const plain = await client().responses.create({ model: 'chat', input: 'Say hello' });
    assert.match(plain.output_text, /^Simulated/);
    assert.ok(plain.usage.output_tokens > 0);
    const stream = await client().responses.create({ model: 'chat', input: 'Say hello', stream: true });
    const kinds = [];
    let text = '';
    for await (const event of stream) {
      kinds.push(event.type);
      if (event.type === 'response.output_text.delta') text += event.delta;
    }
    assert.equal(kinds.at(0), 'response.created');
    assert.equal(kinds.at(-1), 'response.completed');
    assert.match(text, /^Simulated/);
  },
  async moderations() {
    const found = await client().moderations.create({ model: 'moderation', input: 'Say hello' });
    assert.equal(found.results[0].flagged, false);
  },
  async files() {
    const content = '{"custom_id": "a"}\n';
    const file = await client().files.create({
      file: await OpenAI.toFile(Buffer.from(content), 'lines.jsonl'),
      purpose: 'batch',
    });
    assert.equal(file.bytes, content.length);
    assert.equal(await (await client().files.content(file.id)).text(), content);
    assert.equal((await client().files.retrieve(file.id)).filename, 'lines.jsonl');
    const listed = [];
    for await (const one of client().files.list()) listed.push(one.id);
    assert.ok(listed.includes(file.id));
    assert.ok((await client().files.delete(file.id)).deleted);
    await assert.rejects(client().files.retrieve(file.id), OpenAI.NotFoundError);
  },
  async images() {
    const drawn = await client().images.generate({ model: 'drawing', prompt: 'A cat' });
    assert.ok(drawn.data[0].b64_json);
  },
  async sounds() {
    const spoken = await client().audio.speech.create({
      model: 'voice',
      voice: 'alloy',
      input: 'Say hello',
      response_format: 'wav',
    });
    const bytes = Buffer.from(await spoken.arrayBuffer());
    assert.ok(bytes.length > 0);
    const file = await OpenAI.toFile(bytes, 'speech.wav');
    const heard = await client().audio.transcriptions.create({ model: 'ear', file });
    assert.ok(heard.text);
  },
  async models() {
    const found = [];
    for await (const model of client().models.list()) found.push(model.id);
    assert.ok(found.includes('chat'));
    assert.equal((await client().models.retrieve('chat')).id, 'chat');
  },
  async errors() {
    const ask = (model, given) => () => client(given).chat.completions.create({ model, messages });
    const cases = [
      [ask('chat', { apiKey: 'llmops_none' }), OpenAI.AuthenticationError, 'invalid_api_key'],
      [ask('gpt-99'), OpenAI.NotFoundError, 'model_not_found'],
      [ask('limited'), OpenAI.RateLimitError, 'rate_limit_exceeded'],
      [ask('picky'), OpenAI.BadRequestError, undefined],
      [ask('broken'), OpenAI.InternalServerError, 'upstream_error'],
    ];
    for (const [call, kind, code] of cases) {
      await assert.rejects(call, (error) => {
        assert.ok(error instanceof kind, `${error.constructor.name} instead of ${kind.name}`);
        assert.ok(error.requestID);
        if (code) assert.equal(error.code, code);
        return true;
      });
    }
  },
  async broken_stream() {
    const stream = await client().chat.completions.create({ model: 'dropped', messages, stream: true });
    await assert.rejects(async () => {
      for await (const chunk of stream) assert.ok(chunk.id);
    }, /broke off/);
  },
  async aborted() {
    const controller = new AbortController();
    const pending = client().chat.completions.create(
      { model: 'dripping', messages },
      { signal: controller.signal },
    );
    setTimeout(() => controller.abort(), 50);
    await assert.rejects(pending, OpenAI.APIUserAbortError);
  },
};

for (const [check, work] of Object.entries(checks)) {
  let said = '';
  try {
    await work();
  } catch (error) {
    said = String(error?.stack ?? error).slice(0, 1500);
  }
  console.log(JSON.stringify({ check, said }));
}
