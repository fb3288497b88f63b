// The loudness of a track, measured on the audio that is really sent or received.

let context = null; // of the whole page: browsers allow few

/** Measures `track` (a LiveKit audio track) until it is given another; `level()` is 0 to 1. */
export class Level {
  #source = null;
  #analyser = null;
  #measured = null;
  #samples = new Float32Array(1024);

  level(track) {
    this.#measure(track?.mediaStreamTrack ?? null);
    if (!this.#analyser || track.isMuted) return 0;
    this.#analyser.getFloatTimeDomainData(this.#samples);
    const power = this.#samples.reduce((sum, sample) => sum + sample * sample, 0) / this.#samples.length;
    const db = 10 * Math.log10(power + 1e-12);
    return Math.min(1, Math.max(0, (db + 60) / 60)); // -60 dB is silence
  }

  // A microphone that is turned on again is another track under the same name.
  #measure(track) {
    if (track === this.#measured) return;
    this.#source?.disconnect();
    this.#source = this.#analyser = null;
    this.#measured = track;
    if (!track) return;
    context ??= new AudioContext();
    context.resume();
    this.#source = context.createMediaStreamSource(new MediaStream([track]));
    this.#analyser = new AnalyserNode(context, { fftSize: 2 * this.#samples.length });
    this.#source.connect(this.#analyser);
  }
}
