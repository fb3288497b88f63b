import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The origin that a browser shows has to be one of the client's: keep to one name and one port.
export default defineConfig({ plugins: [react()], server: { host: "localhost", port: 5173, strictPort: true } });
