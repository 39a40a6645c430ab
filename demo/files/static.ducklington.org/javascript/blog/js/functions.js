export const quack = () => "quack";
